// An image below a veil that mass lifts, and an outline around the patches that are used. The numbers and the reasons
// are those of explain/map_style.py; tests/web/test_page.py compares what is drawn with them.

const LONG_SIDE = 640; // pixels of a canvas, enough for a panel of half that width on a sharp screen
const VEIL = 0.55;
const USED = 1 / 12;
const LINES = [["#000", 11], ["#fff", 5]]; // colours and widths, for a canvas that is shown at a third to half of its size
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

/** The largest mass of any prompt on any patch: no veil in all panels. */
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

/** A path around boxes, after the rectangle `whole` if there is one. */
function around(boxes, whole = null) {
  const path = new Path2D();
  if (whole) path.rect(...whole);
  for (const [left, top, right, bottom] of boxes) path.rect(left, top, right - left, bottom - top);
  return path;
}

function darken(context, path, opacity) {
  context.fillStyle = `rgb(0 0 0 / ${opacity})`;
  context.fill(path, "evenodd");
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
 * @param {number} largest mass without a veil
 * @param {number} longSide of the canvas in pixels
 */
export function drawMap(canvas, picture, size, patches, largest, longSide = LONG_SIDE) {
  const scale = fit(canvas, size, longSide);
  const context = canvas.getContext("2d");
  paint(context, picture);
  // Whole pixels, so that no seams show between patches.
  const drawn = patches.map(({ box, mass }) => ({ box: box.map((side) => Math.round(side * scale)), share: mass / largest }));
  darken(context, around(drawn.map(({ box }) => box), [0, 0, canvas.width, canvas.height]), VEIL);
  for (const { box, share } of drawn) darken(context, around([box]), VEIL * (1 - share));
  if (isCropped(size)) frameSeen(context, size, scale);
  const used = around(drawn.filter(({ share }) => share >= USED).map(({ box }) => box));
  for (const [colour, width] of LINES) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke(used);
  }
}

/** A patch of the legend, drawn as one with this share of the largest mass. */
export function drawSwatch(canvas, share) {
  const box = [0.1, 0.1, 0.9, 0.9]; // leaves space for the outline
  drawMap(canvas, null, { width: 1, height: 1, seen: [0, 0, 1, 1] }, [{ box, mass: share }], 1, 96);
}
