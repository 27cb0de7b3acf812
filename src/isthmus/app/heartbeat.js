/* The connection by which the server knows that the page is open. Gradio would open it once and never again: where it
   broke off, as on a change of networks, the page would count as closed. An EventSource opens it again by itself. */
(() => {
  "use strict";
  const AGAIN = 5000; // milliseconds; the server waits longer for it
  const ask = window.fetch.bind(window);
  let where = "", beat = null;

  const open = () => {
    beat?.close();
    const mine = new EventSource(where);
    beat = mine;
    // It gives up where the answer is none of the server's own, such as a proxy's while the server starts anew.
    mine.onerror = () => {
      if (mine.readyState === EventSource.CLOSED) setTimeout(() => { if (beat === mine) open(); }, AGAIN);
    };
  };

  /* Only Gradio knows the session's name: it stands in all that is asked of the server. Nothing is kept there before. */
  const heartbeat = (what, options) => {
    const url = what instanceof Request ? what.url : String(what);
    const [root, rest] = url.split("/gradio_api/");
    if (rest === undefined) return "";
    const body = typeof options?.body === "string" ? options.body.slice(-500) : "";
    const name = /[?&]session_hash=(\w+)/.exec(rest) || /"session_hash":"(\w+)"/.exec(body);
    return name ? `${root}/gradio_api/heartbeat/${name[1]}` : "";
  };

  window.fetch = (what, options) => {
    const found = heartbeat(what, options);
    if (found && found !== where) {
      where = found;
      open();
    }
    return ask(what, options);
  };
})();
