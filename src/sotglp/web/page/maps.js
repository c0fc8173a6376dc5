// Maps of one image: a panel per local prompt, for one class or two side by side.

import { drawMap, drawPicture, drawSwatch, isCropped, largestMass, massesOf } from "./map_drawing.js";
import { decision, figure, percent } from "./words.js";

const NONE = ""; // value of the second list without a comparison

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

/** Text alternative of a panel. */
function description(title, patches) {
  const top = patches.reduce((best, one) => (one.mass > best.mass ? one : best));
  return `${title}: mass on ${patches.length} patches; highest mass ${percent(top.mass)} ` +
    `in row ${top.row + 1}, column ${top.column + 1}.`;
}

function panel(title, note, words, draw) {
  const framed = element("figure", "", "panel");
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words);
  draw(canvas);
  const caption = element("figcaption");
  caption.append(element("strong", title), note);
  framed.append(canvas, caption);
  return framed;
}

function mapPanel(title, picture, size, patches, largest) {
  const most = Math.max(...patches.map((patch) => patch.mass));
  return panel(title, `at most ${percent(most)} per patch`, description(title, patches), (canvas) =>
    drawMap(canvas, picture, size, patches, largest));
}

function table(explained) {
  const details = element("details");
  details.append(element("summary", `Table of the patches of ${explained.label}`));
  const prompts = Array.from({ length: explained.n_prompts }, (_, index) => index);
  const grid = element("table");
  const head = grid.createTHead().insertRow();
  for (const title of ["Row", "Column", ...prompts.map((index) => `Prompt ${index + 1}`)]) {
    const cell = element("th", title);
    cell.scope = "col";
    head.append(cell);
  }
  const body = grid.createTBody();
  for (const { row, column, mass } of explained.patches) {
    const line = body.insertRow();
    for (const value of [row + 1, column + 1, ...prompts.map((index) => percent(mass[index]))]) {
      line.insertCell().textContent = value;
    }
  }
  const scroller = element("div", "", "scroller");
  scroller.tabIndex = 0; // wide tables scroll, also with the keyboard
  scroller.setAttribute("role", "region");
  scroller.setAttribute("aria-label", `Patches of ${explained.label}`);
  scroller.append(grid);
  details.append(scroller);
  return details;
}

function classMaps(explained, picture, size, largest) {
  const block = element("section", "", "class-maps");
  const title = element("h3", explained.label);
  const facts = element(
    "p",
    `Probability ${percent(explained.probability)}. Global score ${figure(explained.global_score)} (whole image), ` +
      `local score ${figure(explained.local_score)} (patches).`,
    "facts",
  );
  const panels = element("div", "", "panels");
  panels.append(
    panel("Image", "input", "The image without a map", (canvas) => drawPicture(canvas, picture, size)),
    mapPanel("All prompts", picture, size, massesOf(explained, null), largest),
  );
  for (let prompt = 0; prompt < explained.n_prompts; prompt += 1) {
    panels.append(mapPanel(`Prompt ${prompt + 1}`, picture, size, massesOf(explained, prompt), largest));
  }
  block.append(title, facts, panels, table(explained));
  return block;
}

function legend(largest, cropped) {
  const entries = [[0, "no mass"], [0.5, `${percent(largest / 2)} of a prompt's mass`],
    [1, `${percent(largest)}, the highest share: as bright as the image`]];
  const swatches = entries.map(([share, text]) => {
    const entry = element("span", "", "legend-entry");
    const canvas = element("canvas");
    canvas.setAttribute("aria-hidden", "true");
    drawSwatch(canvas, share);
    entry.append(canvas, element("span", text));
    return entry;
  });
  const outlined = element("span", "outlined: patches that the local prompts of the class use");
  return [outlined, ...swatches, ...(cropped ? [element("span", "dashed frame: the part that the model sees")] : [])];
}

/** Scores of one class, or of one compared with another. */
function verdict(explanation) {
  const known = decision(explanation.ood_score, explanation.ood_method, explanation.threshold);
  const [one, other] = explanation.classes;
  if (!other) return known;
  const compared = (name) => {
    const difference = one[name] - other[name];
    return difference ? `${figure(Math.abs(difference))} ${difference < 0 ? "lower" : "higher"}` : "equal";
  };
  return `${one.label} ${percent(one.probability)}, ${other.label} ${percent(other.probability)}. ` +
    `For ${one.label} the global score is ${compared("global_score")}, the local score ${compared("local_score")}. ${known}`;
}

/**
 * Set up the section of maps.
 *
 * @param {object} parts elements of the section, by name
 * @param {(file: File, classes: string[]) => Promise<object>} explain requests an explanation
 * @param {{onError: (error: Error) => void, onClose: () => void}} callbacks
 */
export function setUpMaps(parts, explain, { onError, onClose }) {
  let shown = null; // the image whose maps are requested or shown
  let request = 0; // only the latest one is drawn

  async function refresh() {
    const picture = shown;
    request += 1;
    const mine = request;
    const [first, second] = [parts.one.value, parts.other.value];
    parts.section.setAttribute("aria-busy", "true");
    try {
      const explanation = await explain(picture.file, second === NONE ? [first] : [first, second]);
      if (mine !== request) return;
      const largest = largestMass(explanation.classes);
      const source = await picture.source();
      if (mine !== request) return;
      parts.verdict.textContent = verdict(explanation);
      parts.classes.classList.toggle("two", explanation.classes.length > 1);
      parts.classes.replaceChildren(
        ...explanation.classes.map((one) => classMaps(one, source, explanation, largest)),
      );
      parts.legend.replaceChildren(...legend(largest, isCropped(explanation)));
    } catch (error) {
      if (mine === request) onError(error);
    } finally {
      if (mine === request) parts.section.removeAttribute("aria-busy");
    }
  }

  function offerOthers() {
    const names = shown.ranked.filter(([name]) => name !== parts.one.value);
    const chosen = parts.other.value === parts.one.value ? NONE : parts.other.value;
    options(parts.other, [[NONE, "none"], ...names.map(([name, share]) => [name, `${name}, ${percent(share)}`])], chosen);
  }

  function close() {
    const closed = shown;
    shown = null;
    request += 1;
    parts.section.hidden = true;
    parts.classes.replaceChildren();
    parts.legend.replaceChildren();
    parts.verdict.textContent = "";
    if (closed) onClose(closed);
  }

  parts.one.addEventListener("change", () => {
    offerOthers();
    refresh();
  });
  parts.other.addEventListener("change", refresh);
  parts.closer.addEventListener("click", close);
  parts.section.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });

  return {
    /** Show the maps of an image, first of its most probable class. */
    show(picture) {
      shown = picture;
      parts.title.textContent = `Maps of ${picture.file.name}`;
      options(parts.one, picture.ranked.map(([name, share]) => [name, `${name}, ${percent(share)}`]), picture.ranked[0][0]);
      parts.other.replaceChildren();
      offerOthers();
      parts.section.hidden = false;
      return refresh();
    },
    close,
    shown: () => shown,
  };
}
