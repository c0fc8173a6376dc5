// The maps of one picture: a panel for each local prompt, for one class or for two side by side.

import { drawMap, drawPicture, drawSwatch, isCropped, largestMass, massesOf } from "./map_drawing.js";
import { figure, likeness, percent } from "./words.js";

const NONE = ""; // value of the second list where nothing is compared

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

/** What a panel shows, for those who don't see it. */
function inWords(title, patches) {
  const top = patches.reduce((best, one) => (one.mass > best.mass ? one : best));
  return `${title}: ${patches.length} patches of the picture; most mass, ${percent(top.mass)}, ` +
    `in row ${top.row + 1}, column ${top.column + 1} of the patches.`;
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
  return panel(title, `at most ${percent(most)} on a patch`, inWords(title, patches), (canvas) =>
    drawMap(canvas, picture, size, patches, largest));
}

function table(explained) {
  const details = element("details");
  details.append(element("summary", `Patches of ${explained.label} as a table`));
  const prompts = Array.from({ length: explained.n_prompts }, (_, place) => place);
  const grid = element("table");
  const head = grid.createTHead().insertRow();
  for (const title of ["Row", "Column", ...prompts.map((place) => `Prompt ${place + 1}`)]) {
    const cell = element("th", title);
    cell.scope = "col";
    head.append(cell);
  }
  const body = grid.createTBody();
  for (const { row, column, mass } of explained.patches) {
    const line = body.insertRow();
    for (const value of [row + 1, column + 1, ...prompts.map((place) => percent(mass[place]))]) {
      line.insertCell().textContent = value;
    }
  }
  const scroller = element("div", "", "scroller");
  scroller.tabIndex = 0; // wide tables scroll, by keys too
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
    `Probability ${percent(explained.probability)}. Global score ${figure(explained.global_score)}, ` +
      `local score ${figure(explained.local_score)}.`,
    "facts",
  );
  const panels = element("div", "", "panels");
  panels.append(
    panel("Picture", "as it was given", "The picture without a map", (canvas) => drawPicture(canvas, picture, size)),
    mapPanel("All prompts", picture, size, massesOf(explained, null), largest),
  );
  for (let prompt = 0; prompt < explained.n_prompts; prompt += 1) {
    panels.append(mapPanel(`Prompt ${prompt + 1}`, picture, size, massesOf(explained, prompt), largest));
  }
  block.append(title, facts, panels, table(explained));
  return block;
}

function legend(largest, cropped) {
  const entries = [[null, "not used: dimmed"], [0, "little mass: faint, thin outline"],
    [1, `most mass, ${percent(largest)} of a prompt's: bright, thick outline`]];
  const swatches = entries.map(([strength, text]) => {
    const entry = element("span", "", "legend-entry");
    const canvas = element("canvas");
    canvas.setAttribute("aria-hidden", "true");
    drawSwatch(canvas, strength);
    entry.append(canvas, element("span", text));
    return entry;
  });
  return cropped ? [...swatches, element("span", "dashed frame: the part that the model saw")] : swatches;
}

/** Why one class and not another, as far as scores tell. */
function verdict(explanation) {
  const said = likeness(explanation.ood_score, explanation.ood_method, explanation.threshold);
  const [one, other] = explanation.classes;
  if (!other) return said;
  const ahead = (name) => {
    const difference = one[name] - other[name];
    return difference ? `${figure(Math.abs(difference))} ${difference < 0 ? "behind" : "ahead"}` : "level";
  };
  return `${one.label} has ${percent(one.probability)}, ${other.label} ${percent(other.probability)}. ` +
    `Globally ${one.label} is ${ahead("global_score")}, locally ${ahead("local_score")}. ${said}`;
}

/**
 * The section of maps.
 *
 * @param {object} parts elements of the section, by name
 * @param {(file: File, classes: string[]) => Promise<object>} explain asks the server
 * @param {{onError: (error: Error) => void, onClose: () => void}} tell
 */
export function setUpMaps(parts, explain, { onError, onClose }) {
  let shown = null; // the picture whose maps are asked for or shown
  let asked = 0; // only the answer to the latest request is drawn

  async function refresh() {
    const picture = shown;
    asked += 1;
    const mine = asked;
    const [first, second] = [parts.one.value, parts.other.value];
    parts.section.setAttribute("aria-busy", "true");
    try {
      const explanation = await explain(picture.file, second === NONE ? [first] : [first, second]);
      if (mine !== asked) return;
      const largest = largestMass(explanation.classes);
      const source = await picture.source();
      if (mine !== asked) return;
      parts.verdict.textContent = verdict(explanation);
      parts.classes.classList.toggle("two", explanation.classes.length > 1);
      parts.classes.replaceChildren(
        ...explanation.classes.map((one) => classMaps(one, source, explanation, largest)),
      );
      parts.legend.replaceChildren(...legend(largest, isCropped(explanation)));
    } catch (error) {
      if (mine === asked) onError(error);
    } finally {
      if (mine === asked) parts.section.removeAttribute("aria-busy");
    }
  }

  function offerOthers() {
    const names = shown.ranked.filter(([name]) => name !== parts.one.value);
    const chosen = parts.other.value === parts.one.value ? NONE : parts.other.value;
    options(parts.other, [[NONE, "nothing"], ...names.map(([name, share]) => [name, `${name}, ${percent(share)}`])], chosen);
  }

  function close() {
    const closed = shown;
    shown = null;
    asked += 1;
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
    /** Show the maps of a picture: of its most probable class to begin with. */
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
