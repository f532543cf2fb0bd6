// Reads class, score and id of the segment under the pointer, from the panoptic PNG that belongs to the picture.
const maps = new WeakMap();
const tip = document.createElement("div");
tip.className = "knet-tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true"); // the table says the same
document.body.appendChild(tip);

function mapOf(picture) {
  const known = maps.get(picture);
  if (known && known.address === picture.dataset.ids) return known;
  const entry = { address: picture.dataset.ids, context: null, width: 0, height: 0 };
  const image = new Image();
  image.onload = () => {
    const canvas = document.createElement("canvas");
    entry.width = canvas.width = image.naturalWidth;
    entry.height = canvas.height = image.naturalHeight;
    entry.context = canvas.getContext("2d", { willReadFrequently: true });
    entry.context.drawImage(image, 0, 0);
  };
  image.src = entry.address;
  maps.set(picture, entry);
  return entry;
}

function show(event) {
  const picture = event.target;
  if (!picture.classList || !picture.classList.contains("knet-picture")) {
    tip.hidden = true;
    return;
  }
  const map = mapOf(picture);
  const place = picture.getBoundingClientRect();
  const x = Math.floor(((event.clientX - place.left) / place.width) * picture.naturalWidth);
  const y = Math.floor(((event.clientY - place.top) / place.height) * picture.naturalHeight);
  let text = "";
  if (map.context && x >= 0 && y >= 0 && x < map.width && y < map.height) {
    const [red, green, blue] = map.context.getImageData(x, y, 1, 1).data;
    text = JSON.parse(picture.dataset.segments)[red + 256 * green + 65536 * blue] || "nothing";
  }
  tip.hidden = !text;
  tip.textContent = text;
  tip.style.left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.max(event.clientY - tip.offsetHeight - 10, 4) + "px";
}

element.addEventListener("pointermove", show);
element.addEventListener("pointerdown", show);
element.addEventListener("pointerleave", () => (tip.hidden = true));

// On a phone results are far below the controls that made them.
let last = null;
new MutationObserver(() => {
  const figure = element.querySelector(".knet-result");
  const fresh = figure && !last;
  last = figure;
  if (fresh && window.innerWidth < 700) element.scrollIntoView({ behavior: "smooth", block: "start" });
}).observe(element, { childList: true, subtree: true });
