// Tables sort by a click on a heading; without this script they are as they were written.
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => {
        const text = row.cells[column].textContent.trim();
        return { row, text, number: /^[-+]?\d+(\.\d+)?$/.test(text) ? Number(text) : NaN };
      });
      rows.sort((a, b) => {
        if (a.text === "-" || b.text === "-") return (a.text === "-") - (b.text === "-"); // nothing comes last
        const order = Number.isNaN(a.number - b.number) ? a.text.localeCompare(b.text) : a.number - b.number;
        return down ? -order : order;
      });
      body.append(...rows.map((one) => one.row));
    });
  });
}
