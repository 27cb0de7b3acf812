/* Mends of Gradio's own components that only the browser can make. */
(() => {
  "use strict";
  const mend = () => {
    // A name that is not what the button shows is read out wrongly.
    document.querySelectorAll(".upload-container[aria-label], button[aria-label='Drop an image file here to upload']")
      .forEach((button) => button.setAttribute("aria-label", button.innerText.trim().replace(/\s+/g, " ") || "Upload"));
  };
  new MutationObserver(mend).observe(document.documentElement, { childList: true, subtree: true });
})();
