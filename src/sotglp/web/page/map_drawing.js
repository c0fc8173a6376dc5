// An image with its patches: brightness and outline show the mass; patches without mass are grey and dim.
// Hue carries no information, so that maps work in grey and for colour-blind users.

const LONG_SIDE = 640; // pixels of a canvas, enough for a panel of half that width on a sharp screen
const VEIL = "rgb(8 12 18 / 0.66)";
const LEAST_LIGHT = 0.4; // keeps patches with little mass visible
const THINNEST = 0.03; // line, as a share of the patch's side
const THICKER = 0.07;
const NO_PREVIEW = "#9aa3ad";

/** Mass per patch: of one prompt, or with `prompt` null the mean over all. */
export function massesOf(explained, prompt) {
  return explained.patches
    .map(({ row, column, box, mass }) => ({
      row,
      column,
      box,
      mass: prompt === null ? mass.reduce((sum, one) => sum + one, 0) / mass.length : mass[prompt],
    }))
    .filter((patch) => patch.mass > 0);
}

/** The largest mass of any prompt on any patch: full brightness in all panels. */
export function largestMass(classes) {
  return Math.max(...classes.flatMap((one) => one.patches.flatMap((patch) => patch.mass)));
}

function paint(context, picture) {
  const { width, height } = context.canvas;
  if (picture) {
    context.drawImage(picture, 0, 0, width, height);
    return;
  }
  context.fillStyle = NO_PREVIEW;
  context.fillRect(0, 0, width, height);
}

function lightUp(context, picture, [left, top, right, bottom], strength) {
  const [width, height] = [right - left, bottom - top];
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.globalAlpha = LEAST_LIGHT + (1 - LEAST_LIGHT) * strength;
  paint(context, picture);
  context.globalAlpha = 1;
  // A light line within a dark one is visible on any image. Only the inner half of a line is within the patch.
  const line = (THINNEST + THICKER * strength) * Math.min(width, height);
  for (const [colour, thickness] of [["#000", 1.5 * line], ["#fff", line]]) {
    context.strokeStyle = colour;
    context.lineWidth = 2 * thickness;
    context.strokeRect(left, top, width, height);
  }
  context.restore();
}

/** Whether the model sees only a part of the image, due to a centre crop. */
export function isCropped({ width, height, seen: [left, top, right, bottom] }) {
  return Math.max(left, top, width - right, height - bottom) > 0.5;
}

function frameSeen(context, size, scale) {
  const [left, top, right, bottom] = size.seen.map((side) => side * scale);
  context.save();
  context.strokeStyle = "#fff";
  context.lineWidth = 3;
  context.setLineDash([10, 8]);
  context.strokeRect(left + 1.5, top + 1.5, right - left - 3, bottom - top - 3);
  context.restore();
}

function fit(canvas, { width, height }, longSide) {
  const scale = longSide / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  return scale;
}

/** Draw the image without a map. */
export function drawPicture(canvas, picture, size) {
  fit(canvas, size, LONG_SIDE);
  paint(canvas.getContext("2d"), picture);
}

/**
 * Draw one panel.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasImageSource | null} picture null if the browser does not support its format
 * @param {{width: number, height: number, seen: number[]}} size of the image and the part that the model sees, in pixels
 * @param {{box: number[], mass: number}[]} patches with left, top, right and bottom in pixels of the image
 * @param {number} largest mass of full brightness
 * @param {number} longSide of the canvas in pixels
 */
export function drawMap(canvas, picture, size, patches, largest, longSide = LONG_SIDE) {
  const scale = fit(canvas, size, longSide);
  const context = canvas.getContext("2d");
  context.filter = "grayscale(1)";
  paint(context, picture);
  context.filter = "none";
  context.fillStyle = VEIL;
  context.fillRect(0, 0, canvas.width, canvas.height);
  if (isCropped(size)) frameSeen(context, size, scale);
  for (const { box, mass } of patches) {
    lightUp(context, picture, box.map((side) => side * scale), mass / largest);
  }
}

/** A patch of the legend, lit as one with this share of the largest mass; null for a patch that is not used. */
export function drawSwatch(canvas, strength) {
  const patches = strength === null ? [] : [{ box: [0, 0, 1, 1], mass: strength }];
  drawMap(canvas, null, { width: 1, height: 1, seen: [0, 0, 1, 1] }, patches, 1, 96);
}
