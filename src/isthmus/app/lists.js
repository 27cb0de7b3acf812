/* Lists whose items are chosen: former results, and examples. */
(() => {
  "use strict";
  const { make, plain } = window.isthmus.parts;

  const list = (item) => (root, props, watch, trigger) => {
    const host = root.querySelector(".iv") || root;
    /* The focus stays in the list: on the item that is current now, else on the one in the same place. */
    const draw = () => {
      const at = host.contains(document.activeElement) ? document.activeElement.dataset.index : null;
      host.replaceChildren(...(props.value ? props.value.items : []).map((one, index) =>
        item(one, index, () => trigger("select", { index }))));
      if (at !== null) (host.querySelector("[aria-current=true]") || host.children[at])?.focus({ preventScroll: true });
    };
    watch("value", draw);
    draw();
  };

  window.isthmus.history = list((one, index, onclick) => make("button", {
    type: "button", class: "iv-past", "aria-current": one.now ? "true" : false, "data-index": index, onclick,
  }, make("span", { class: "iv-past-text", dir: "auto", text: one.text }),
  make("span", { class: "iv-past-number", text: one.similarity === null ? "" : plain(one.similarity) }),
  make("span", { class: "iv-label iv-past-how", text: one.how })));

  window.isthmus.samples = list((one, index, onclick) => make("button", {
    type: "button", class: "iv-sample", "data-index": index, title: one.text, "aria-label": `Example: ${one.text}`, onclick,
  }, make("img", { src: one.picture, alt: "" })));
})();
