// The problems that a reader would see on this page, one per line.
const least = 11; // the smallest text, in pixels

async function check(width) {
  const problems = [];
  await diagrams(problems);
  await document.fonts.ready;
  for (const svg of document.querySelectorAll(".mermaid svg")) {
    texts(svg, "a diagram", problems);
    overflow(svg, problems);
  }
  for (const img of document.images) await picture(img, problems);
  if (document.documentElement.scrollWidth > width) {
    const wide = [...document.querySelectorAll("body *")].find(
      (e) => e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement));
    problems.push(`the page is wider than the window: ${wide ? "<" + wide.tagName.toLowerCase() + "> " + short(wide.textContent) : ""}`);
  }
  return [...new Set(problems)];
}

const short = (text) => JSON.stringify(text.trim().replace(/\s+/g, " ").slice(0, 40));
const scrolls = (e) => e && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));

async function diagrams(problems) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  mermaid.initialize({ startOnLoad: false, suppressErrorRendering: true, theme: dark ? "dark" : "default" });
  let n = 0;
  for (const code of document.querySelectorAll("code.language-mermaid")) {
    const box = document.createElement("div");
    box.className = "mermaid";
    try {
      box.innerHTML = (await mermaid.render(`diagram-${n++}`, code.textContent)).svg;
      code.parentElement.replaceWith(box);
    } catch (err) {
      problems.push(`the mermaid block ${short(code.textContent)} does not render: ${String(err.message || err).replace(/\s+/g, " ")}`);
    }
  }
}

// written lists the texts of an svg with their rectangles.
function* written(svg) {
  const walk = document.createTreeWalker(svg, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    if (!node.data.trim() || node.parentElement.closest("style, title, desc, script")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    if (box.width > 0) yield { node, box };
  }
}

function texts(svg, where, problems) {
  const frame = svg.getBoundingClientRect();
  for (const { node, box } of written(svg)) {
    const m = node.parentElement.closest("text, foreignObject").getScreenCTM();
    const px = parseFloat(getComputedStyle(node.parentElement).fontSize) * Math.hypot(m.a, m.b);
    if (px < least - 0.05) problems.push(`${where}: the text ${short(node.data)} is ${px.toFixed(1)} px, less than ${least}`);
    if (!within(box, frame)) problems.push(`${where}: the text ${short(node.data)} is cut off at the edge`);
  }
}

const within = (a, b) => a.left >= b.left - 1.5 && a.right <= b.right + 1.5 && a.top >= b.top - 3 && a.bottom <= b.bottom + 3;

// overflow finds text that extends outside its node, participant or note.
function overflow(svg, problems) {
  const shapes = new Map();
  for (const shape of svg.querySelectorAll(".node .label-container, .node > rect, .node > polygon, .node > circle, .node > path, rect.actor, rect.note"))
    if (!shapes.has(shape.parentElement)) shapes.set(shape.parentElement, shape.getBoundingClientRect());
  for (const [group, frame] of shapes)
    for (const { node, box } of written(group))
      if (!within(box, frame)) problems.push(`a diagram: the text ${short(node.data)} overflows its node`);
}

async function picture(img, problems) {
  const src = img.getAttribute("src");
  if (!img.alt.trim()) problems.push(`the picture ${src} has no alt`);
  const url = new URL(img.currentSrc || img.src);
  if (url.origin !== location.origin) return; // a badge, which needs a network
  await img.decode().catch(() => {});
  if (!img.naturalWidth) return problems.push(`the picture ${url.pathname.slice(1)} does not load`);
  if (!url.pathname.endsWith(".svg")) return;
  // The same picture inline and at the same size, so that its texts can be measured.
  const svg = new DOMParser().parseFromString(await (await fetch(url)).text(), "image/svg+xml").documentElement;
  if (!svg.hasAttribute("viewBox")) svg.setAttribute("viewBox", `0 0 ${img.naturalWidth} ${img.naturalHeight}`);
  const shown = img.getBoundingClientRect();
  svg.setAttribute("width", shown.width);
  svg.setAttribute("height", shown.height);
  const host = document.createElement("div");
  host.style = "all: initial; position: fixed; top: 0; left: 0";
  host.attachShadow({ mode: "open" }).append(svg);
  document.body.append(host);
  texts(svg, url.pathname.slice(1), problems);
  host.remove();
}
