// Color stands for magnitude and nothing else: cividis, the same ramp as the figures, in both themes.
// Identity is always a position and a printed number.

// 33 evenly spaced stops of matplotlib's cividis, RRGGBB.
const CIVIDIS = (
  "00224e 00285b 002e6a 053371 1a386f 273e6e 32436d 3b496c 434e6c 4b546c 535a6d " +
  "5a5f6e 61656f 686a71 6f7073 767676 7d7c78 848279 8c8878 938e78 9b9476 a39a74 " +
  "aba072 b4a76f bcae6c c4b468 cdbb63 d5c25e dec958 e7d150 f0d846 f9e03a fee838"
)
  .split(" ")
  .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));

// [r, g, b] of a share between 0 and 1.
function cividis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const low = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return CIVIDIS[low].map((value, i) => Math.round(value + (at - low) * (CIVIDIS[low + 1][i] - value)));
}

const cssColor = (rgb) => `rgb(${rgb[0]} ${rgb[1]} ${rgb[2]})`;

// Black or white, whichever reads better on `rgb` (WCAG relative luminance): never below 4.5 to 1.
function inkOn(rgb) {
  const [r, g, b] = rgb.map((value) => {
    const c = value / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

const shareIn = ([low, high], value) => (high > low ? (value - low) / (high - low) : 1);

// The page's own colors, from the style sheet, for what is drawn on a canvas.
function themeColor(name) {
  return getComputedStyle(document.documentElement)
    .getPropertyValue("--" + name)
    .trim();
}
