"""Which class is which, by names."""

from knet.class_names import only_on_one_side, same_names


def test_tables_of_a_hundred_thousand_classes() -> None:
    """Each name looked for among all others takes minutes."""
    names = [f"class {number}" for number in range(100_000)]
    assert same_names(names, names[::-1]) == list(range(100_000))[::-1]
    assert "only the data has 'class 0'" in only_on_one_side(names, "the data", names[1:], "the model")
