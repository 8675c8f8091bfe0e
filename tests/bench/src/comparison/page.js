// Pointing at a name in a legend shows its line alone.
for (const figure of document.querySelectorAll("figure")) {
  const lines = figure.querySelectorAll("polyline");
  figure.querySelectorAll(".legend li").forEach((item, at) => {
    const dim = (on) => lines.forEach((line, other) => line.classList.toggle("dim", on && other !== at));
    item.addEventListener("pointerenter", () => dim(true));
    item.addEventListener("pointerleave", () => dim(false));
  });
}
