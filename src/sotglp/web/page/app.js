// The page: what comes in, what is asked of the server, and where the answers go.

import { setUpAdding } from "./adding.js";
import * as api from "./api.js";
import { setUpCamera } from "./camera.js";
import { download, joined } from "./csv.js";
import { takeChosen, takeDropped, takePasted } from "./intake.js";
import { setUpMaps } from "./maps.js";
import { describeModel } from "./model_facts.js";
import { Picture } from "./pictures.js";
import { setUpCards } from "./results.js";
import { count, megabytes } from "./words.js";

const at = (id) => document.getElementById(id);

let model = null;
let pictures = [];
let reading = null; // AbortController of the pictures that are read
let turn = Promise.resolve(); // what is under way; the next step comes after it

function say(text) {
  at("status").textContent = text;
}

function fail(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof api.Refusal)) throw error;
  warn(error.message);
}

function warn(text) {
  at("alert").hidden = false;
  at("alert-text").textContent = text;
}

function unwarn() {
  at("alert").hidden = true;
  at("alert-text").textContent = "";
}

function state(name, text) {
  at("state").dataset.state = name;
  at("state").textContent = text;
}

async function refreshModel() {
  const [health, now] = await Promise.all([api.health(), api.model()]);
  model = now;
  describeModel(health, now, removeClass);
  state("ready", "Ready");
}

/** Do one thing after the other: pictures that come in while others are read, or while a class is learned, wait. */
function inTurn(step) {
  const done = turn.then(step);
  turn = done.catch(() => {}); // told where it is awaited
  return done;
}

/** Run a step that moves through many files, with its count shown. */
async function withProgress(verb, files, step) {
  reading = new AbortController();
  at("progress").hidden = false;
  state("busy", "Working");
  let done = 0;
  const tell = () => {
    at("progress-bar").max = files.length;
    at("progress-bar").value = done;
    at("progress-text").textContent = `${verb} ${count(files.length, "picture")}: ${done} done`;
  };
  tell();
  try {
    for (const chunk of api.chunks(files, model.limits)) {
      await step(chunk, reading.signal);
      done += chunk.length;
      tell();
    }
  } finally {
    reading = null;
    at("progress").hidden = true;
    state("ready", "Ready");
  }
}

/** Ask for predictions and renew the cards. */
async function predict(some) {
  const of = new Map(some.map((picture) => [picture.file, picture]));
  await withProgress("Reading", some.map((picture) => picture.file), async (files, signal) => {
    const answers = await api.predict(files, signal);
    answers.forEach((answer, place) => {
      const picture = of.get(files[place]);
      if (!pictures.includes(picture)) return; // removed meanwhile
      picture.take(answer);
      cards.put(picture, model);
    });
    showLists();
  });
}

function summary(some) {
  if (!some.length) return "";
  const read = some.filter((picture) => picture.prediction);
  const unknown = read.filter((picture) => picture.prediction.is_unknown).length;
  const failed = some.filter((picture) => picture.error).length;
  const parts = [`${count(read.length, "picture")} read`];
  if (model.calibrated) parts.push(`${unknown} unknown`);
  if (failed) parts.push(`${failed} not readable`);
  if (read.length === 1 && !unknown) parts.push(read[0].ranked[0][0]);
  return `${parts.join(", ")}.`;
}

function showLists() {
  at("empty").hidden = pictures.length > 0;
  at("results-tools").hidden = !pictures.some((picture) => picture.prediction);
}

function takeIn(files) {
  unwarn();
  inTurn(() => readLot(files)).catch(fail);
}

async function readLot(files) {
  if (!model) await refreshModel();
  const most = model.limits.max_image_bytes;
  const large = files.filter((file) => file.size > most).map((file) => `${file.name} (${megabytes(file.size)})`);
  if (large.length) warn(`A picture may have ${megabytes(most)} at most, so this was not sent: ${large.join(", ")}.`);
  const lot = files.filter((file) => file.size <= most).map((file) => new Picture(file));
  if (!lot.length) return;
  pictures.push(...lot);
  try {
    await predict(lot);
  } finally {
    // What was stopped, refused or removed has no card, and is forgotten.
    const left = lot.filter((picture) => !picture.card);
    left.forEach((picture) => picture.forget());
    pictures = pictures.filter((picture) => !left.includes(picture));
    showLists();
    say(summary(lot.filter((picture) => picture.card)));
  }
  if (lot.length === 1 && lot[0].card && lot[0].prediction && model.has_maps) showMaps(lot[0]).catch(fail);
}

function showMaps(picture) {
  cards.mark(picture);
  return maps.show(picture);
}

function remove(picture) {
  const place = pictures.indexOf(picture);
  pictures = pictures.filter((one) => one !== picture);
  if (maps.shown() === picture) maps.close();
  picture.forget();
  showLists();
  const next = pictures[Math.min(place, pictures.length - 1)];
  (next?.card?.querySelector(".remove") ?? at("choose")).focus();
  say(`${picture.file.name} removed.`);
}

function removeAll() {
  maps.close();
  pictures.forEach((picture) => picture.forget());
  pictures = [];
  showLists();
  at("choose").focus();
  say("All pictures removed.");
}

async function downloadCsv() {
  const tables = [];
  const files = pictures.filter((picture) => picture.prediction).map((picture) => picture.file);
  await withProgress("Writing", files, async (chunk, signal) => tables.push(await api.predictCsv(chunk, signal)));
  download(joined(tables), "predictions.csv");
  say(`A table of ${count(files.length, "picture")} is downloaded.`);
}

/** After classes have changed, everything on the page is what the new model says. */
async function renew() {
  await refreshModel();
  await predict(pictures.filter((picture) => picture.prediction));
  if (maps.shown()) await showMaps(maps.shown());
}

async function changeClasses(change, done) {
  unwarn();
  const was = model.calibrated;
  state("busy", "Learning");
  try {
    await inTurn(async () => {
      await change();
      await renew();
    });
    if (was && !model.calibrated) say(`${done} The threshold is gone with it: no picture is called unknown any more.`);
    else if (!was && model.calibrated) say(`${done} The threshold is back.`);
    else say(done);
    return true;
  } catch (error) {
    state("ready", "Ready");
    fail(error);
    return false;
  }
}

function addClass(name, files) {
  return changeClasses(() => api.addClass(name, files), `The class ${name} is added, and the pictures on this page are read with it.`);
}

function removeClass(name) {
  return changeClasses(() => api.removeClass(name), `The class ${name} is removed.`);
}

const cards = setUpCards(at("cards"), at("card-template"), {
  onMaps: async (picture) => {
    unwarn();
    const drawn = showMaps(picture);
    at("maps-title").focus({ preventScroll: true });
    at("maps").scrollIntoView({ block: "start" });
    await drawn;
  },
  onRemove: remove,
});

const maps = setUpMaps(
  {
    section: at("maps"), title: at("maps-title"), one: at("maps-class"), other: at("maps-other"),
    verdict: at("maps-verdict"), classes: at("maps-classes"), legend: at("maps-legend"), closer: at("maps-close"),
  },
  (file, classes) => api.explain(file, classes),
  {
    onError: fail,
    onClose: (picture) => {
      cards.mark(null);
      picture.card.querySelector(".show-maps").focus();
    },
  },
);

const noFolder = () => warn("A folder can't be dropped: open it and drop its pictures.");

takeChosen(at("choose"), at("files"), takeIn);
setUpAdding(
  {
    form: at("adding-form"), name: at("adding-name"), drop: at("adding-drop"), choose: at("adding-choose"),
    input: at("adding-files"), chosen: at("adding-chosen"), count: at("adding-count"), thumbs: at("adding-thumbs"),
    clear: at("adding-clear"), submit: at("adding-submit"), progress: at("adding-progress"),
  },
  { add: addClass, onError: warn, limits: () => model.limits },
);
takeDropped(document.documentElement, at("drop"), takeIn, noFolder);
takePasted(takeIn);
setUpCamera({
  opener: at("camera-open"), panel: at("camera"), video: at("camera-video"), taker: at("camera-take"),
  closer: at("camera-close"), onPicture: (file) => takeIn([file]), onError: warn,
});
at("csv").addEventListener("click", () => {
  unwarn();
  inTurn(downloadCsv).catch(fail);
});
at("clear").addEventListener("click", removeAll);
at("progress-stop").addEventListener("click", () => reading?.abort());
at("alert-close").addEventListener("click", () => {
  unwarn();
  at("choose").focus();
});

refreshModel().catch((error) => {
  state("gone", "Not connected");
  fail(error);
});
