/* Mends of Gradio's own components that only the browser can make. */
(() => {
  "use strict";
  const named = (node, name) => ["aria-label", "title"].forEach((key) => {
    if (node.getAttribute(key) !== name) node.setAttribute(key, name);
  });

  const mend = () => {
    const all = (selector, change) => document.querySelectorAll(selector).forEach(change);
    // A name that is not what the button shows is read out wrongly.
    all(".upload-container[aria-label]:not(.icon-mode), button[aria-label='Drop an image file here to upload']", (button) =>
      button.setAttribute("aria-label", button.innerText.trim().replace(/\s+/g, " ") || "Upload"));
    // Once files are there, a button that does nothing holds the one that takes more, and bears a key for its name.
    all(".icon-button:has(.upload-container.icon-mode)", (outer) => {
      outer.setAttribute("role", "group");
      outer.tabIndex = -1;
      named(outer, "More files");
    });
    all(".upload-container.icon-mode", (button) => named(button, "Add files"));
    // What is removed is named by what is seen, not by its place in a list, nor alike for each file.
    all(".token .token-remove", (button) => named(button, `Remove ${button.closest(".token").innerText.trim()}`));
    all(".file .label-clear-button", (button) =>
      named(button, `Remove ${button.closest(".file").querySelector(".filename").getAttribute("aria-label")}`));
  };
  /* The default of a slider, as the place of a mark on its track. */
  const mark = () => document.querySelectorAll(".isthmus-marked").forEach((block) => {
    const value = [...block.classList].map((name) => /^isthmus-default-(\d+)$/.exec(name)).find(Boolean);
    const range = block.querySelector("input[type=range]");
    if (!value || !range) return;
    const share = (Number(value[1]) - Number(range.min)) / (Number(range.max) - Number(range.min));
    if (range.style.getPropertyValue("--default") !== String(share)) range.style.setProperty("--default", share);
  });

  /* Arrow keys go from tab to tab, as in every list of tabs. */
  document.addEventListener("keydown", (event) => {
    const tab = event.target.closest?.("[role=tab]"), way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!tab || !way) return;
    const all = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]:not(:disabled)")];
    const next = all[(all.indexOf(tab) + way + all.length) % all.length];
    next.focus();
    next.click();
    event.preventDefault();
  });

  new MutationObserver(() => { mend(); mark(); }).observe(document.documentElement, { childList: true, subtree: true, attributes: true, attributeFilter: ["max"] });
})();
