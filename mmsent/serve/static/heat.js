// A map of shares in colour over a picture in grey.

import { t } from "./common.js";

// Some stops of matplotlib's inferno: even steps look even, and dark is where nothing is.
const STOPS = [
  [0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164],
];

function colour(share) {
  const at = Math.min(1, Math.max(0, share)) * (STOPS.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, STOPS.length - 1);
  return [0, 1, 2].map((i) => STOPS[low][i] + (at - low) * (STOPS[high][i] - STOPS[low][i]));
}

/** A value between the middles of the cells of a map, at x and y in 0..1. */
function between(values, x, y) {
  const [rows, columns] = [values.length, values[0].length];
  const clamp = (v, most) => Math.min(most, Math.max(0, v));
  const [r, c] = [clamp(y * rows - 0.5, rows - 1), clamp(x * columns - 0.5, columns - 1)];
  const [r0, c0] = [Math.floor(r), Math.floor(c)];
  const [r1, c1] = [Math.min(r0 + 1, rows - 1), Math.min(c0 + 1, columns - 1)];
  const above = values[r0][c0] + (c - c0) * (values[r0][c1] - values[r0][c0]);
  const below = values[r1][c0] + (c - c0) * (values[r1][c1] - values[r1][c0]);
  return above + (r - r0) * (below - above);
}

const images = new Map();

async function imageOf(url) {
  if (!images.has(url)) {
    images.clear();
    const image = new Image();
    image.src = url;
    await image.decode();
    images.set(url, image);
  }
  return images.get(url);
}

/** Draw values (rows of shares) over the picture at a data URL. strength: 0 shows the picture alone. */
export async function drawMap(canvas, url, values, strength) {
  const image = await imageOf(url);
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  if (strength <= 0) return;
  const pixels = pen.getImageData(0, 0, width, height);
  const data = pixels.data;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = 4 * (y * width + x);
      const grey = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
      const over = colour(between(values, (x + 0.5) / width, (y + 0.5) / height));
      for (let i = 0; i < 3; i += 1) data[at + i] = (1 - strength) * grey + strength * over[i];
    }
  }
  pen.putImageData(pixels, 0, 0);
}

/** A cell of a grid in words: top left, say. */
export function placeOf([row, column], [rows, columns]) {
  const third = (at, of) => Math.min(2, Math.floor((3 * (at + 0.5)) / of));
  const down = ["place_top", "place_middle", "place_bottom"][third(row, rows)];
  const across = ["place_left", "place_centre", "place_right"][third(column, columns)];
  return document.documentElement.lang.startsWith("zh") ? t(down) + t(across) : `${t(down)}, ${t(across)}`;
}
