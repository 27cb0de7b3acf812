/* How amounts and places are written: as `isthmus.app.view` does in the texts that stand for pictures. */
(() => {
  "use strict";
  const { signed } = window.isthmus;
  const TOP = 3;

  /* Decimal places of scores that go up to `limit`: `least` of a cosine's, more where all are small, fewer where they
     are large, as bits are. */
  const digits = (limit, least) => {
    const order = Math.floor(Math.log10(limit || 1));
    return order < 0 ? Math.max(least, Math.min(20, 2 - order)) : Math.max(0, 3 - order);
  };

  const score = (value, limit, least = 4) => signed(value, digits(limit, least));

  /* The end of a scale: two digits of it, and never in powers of ten. */
  const amount = (limit) => limit.toFixed(Math.max(0, Math.min(20, 1 - Math.floor(Math.log10(limit || 1)))));

  /* Where a region lies, in words. */
  const place = (row, column, rows, columns) => {
    const down = ["top", "middle", "bottom"][Math.min(2, Math.floor(3 * row / rows))];
    const across = ["left", "centre", "right"][Math.min(2, Math.floor(3 * column / columns))];
    const where = down === "middle" && across === "centre" ? "centre" : `${down} ${across}`;
    return `${where} (row ${row + 1}, column ${column + 1})`;
  };

  /* The regions that say most, with their scores. */
  const strongest = ({ scores, limit }, rows, columns) => scores.map((value, cell) => [value, cell])
    .sort(([a], [b]) => Math.abs(b) - Math.abs(a)).slice(0, TOP)
    .map(([value, cell]) => `${place(Math.floor(cell / columns), cell % columns, rows, columns)} ${score(value, limit)}`).join(", ");

  Object.assign(window.isthmus, { digits, score, amount, place, strongest });
})();
