// Draws every spec of the page into the element it names. The interpreter (ast) needs no unsafe-eval.
(() => {
  "use strict";
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    ast: true,
    actions: false,
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  };
  const draw = (node) => {
    const target = document.getElementById(node.dataset.chart);
    return vegaEmbed(target, JSON.parse(node.textContent), options).catch((error) => {
      target.textContent = "This chart could not be drawn: " + error.message;
      throw error;
    });
  };
  const specs = [...document.querySelectorAll("script[data-chart]")];
  Promise.allSettled(specs.map(draw)).then((results) => {
    const drawn = results.filter((result) => result.status === "fulfilled").length;
    document.documentElement.dataset.charts = drawn + "/" + specs.length;
  });
})();
