/* Colour scales centred on zero, and heat maps painted with them. */
window.isthmus = (() => {
  "use strict";

  const PAIRS = {
    "red-blue": { name: "Red and blue", for: [178, 24, 43], against: [33, 102, 172] },
    "orange-purple": { name: "Orange and purple", for: [201, 97, 8], against: [84, 39, 136] },
  };
  const CIVIDIS = [
    [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115], [138, 134, 120],
    [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56],
  ];
  const OPACITY = 0.85, GAMMA = 0.8, VEIL = 0.5, LEGIBLE = 4.5;

  const maps = [...Object.entries(PAIRS).map(([key, pair]) => [key, pair.name]), ["cividis", "Cividis"]];

  /* Colour [r, g, b, alpha] of a value over its limit, in [-1, 1]. Zero is clear, but in a scale whose middle is a
     colour of its own: there it is a veil, which goes where only what speaks for the match is shown. */
  const colour = (value, map, positive = false) => {
    const v = Math.max(-1, Math.min(1, value));
    if (map === "cividis") {
      const at = (v + 1) / 2 * (CIVIDIS.length - 1), low = Math.min(CIVIDIS.length - 2, Math.floor(at));
      return [...CIVIDIS[low].map((c, i) => c + (at - low) * (CIVIDIS[low + 1][i] - c)),
        positive ? OPACITY * Math.abs(v) ** GAMMA : VEIL + (OPACITY - VEIL) * Math.abs(v)];
    }
    return [...(v >= 0 ? PAIRS[map].for : PAIRS[map].against), OPACITY * Math.abs(v) ** GAMMA];
  };

  /* The same without the picture that shines through, for words. */
  const solid = ([r, g, b, alpha]) => [r, g, b, alpha / OPACITY];
  const over = ([r, g, b, alpha], paper) => [r, g, b].map((c, i) => c * alpha + paper[i] * (1 - alpha));
  const css = (rgb) => `rgb(${rgb.map(Math.round).join(" ")})`;

  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };

  /* White where it is legible on a colour (WCAG's 4.5), else black, which then has 4.6 at least; on saturated colours
     white reads better than the mere contrast says. */
  const ink = (rgb) => (1.05 / (luminance(rgb) + 0.05) >= LEGIBLE ? "#fff" : "#000");

  const paperOf = (element) => {
    const found = getComputedStyle(element).getPropertyValue("--iv-paper").trim().match(/\d+/g);
    return found ? found.slice(0, 3).map(Number) : [255, 255, 255];
  };

  /* Weights of neighbouring patches at each pixel of one axis: bilinear between their centres. */
  const axis = (pixels, patches) => Array.from({ length: pixels }, (_, i) => {
    const place = Math.max(0, Math.min(patches - 1, (i + 0.5) / pixels * patches - 0.5));
    const low = Math.min(Math.floor(place), Math.max(0, patches - 2));
    return [low, Math.min(low + 1, patches - 1), place - low];
  });

  /* Paint scores (rows x columns) on a canvas that covers what the model saw. */
  const paint = (canvas, { scores, rows, columns, limit, map, positive }) => {
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    const across = axis(canvas.width, columns), down = axis(canvas.height, rows);
    for (let y = 0, at = 0; y < canvas.height; y++) {
      const [top, bottom, v] = down[y];
      for (let x = 0; x < canvas.width; x++, at += 4) {
        const [left, right, u] = across[x];
        const upper = scores[top * columns + left] * (1 - u) + scores[top * columns + right] * u;
        const lower = scores[bottom * columns + left] * (1 - u) + scores[bottom * columns + right] * u;
        const value = (upper * (1 - v) + lower * v) / limit;
        if (positive && value <= 0) continue;
        const [r, g, b, alpha] = colour(value, map, positive);
        image.data.set([r, g, b, 255 * alpha], at);
      }
    }
    context.putImageData(image, 0, 0);
  };

  /* The bar of a scale as a CSS gradient. */
  const ramp = (map, positive, paper, words = false) => {
    const stops = Array.from({ length: 17 }, (_, i) => positive ? i / 16 : i / 8 - 1);
    return `linear-gradient(90deg, ${stops.map((v) => css(over(words ? solid(colour(v, map, positive)) : colour(v, map, positive), paper))).join(", ")})`;
  };

  const signed = (value, digits = 4) => (value >= 0 ? "+" : "\u2212") + Math.abs(value).toFixed(digits);

  return { maps, colour, solid, over, css, ink, paperOf, paint, ramp, signed };
})();
