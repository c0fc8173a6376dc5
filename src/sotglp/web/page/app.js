// The page: connects inputs, requests and views.

import { setUpAdding } from "./adding.js";
import * as api from "./api.js";
import { setUpCamera } from "./camera.js";
import { download, joined } from "./csv.js";
import { takeChosen, takeDropped, takePasted } from "./intake.js";
import { setUpMaps } from "./maps.js";
import { describeModel, describeNoModel } from "./model_facts.js";
import { Picture } from "./pictures.js";
import { setUpCards } from "./results.js";
import { setUpTraining } from "./training.js";
import { count, megabytes } from "./words.js";

const at = (id) => document.getElementById(id);

let model = null;
let training = null; // the part that trains a model, on a server without a model file
let pictures = [];
let reading = null; // AbortController of the current batch
let turn = Promise.resolve(); // the current step; the next one waits for it

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
  const health = await api.health();
  if (health.trains && !training) await startTraining();
  model = health.model === null ? null : await api.model();
  for (const id of ["intake", "work", "side"]) at(id).hidden = !model;
  if (model) describeModel(health, model, removeClass);
  else describeNoModel();
  state("ready", "Ready");
}

/** Run steps one after the other: new images wait for earlier ones and for class changes. */
function inTurn(step) {
  const done = turn.then(step);
  turn = done.catch(() => {}); // reported by the caller
  return done;
}

/** Run a step on chunks of files, with progress. */
async function withProgress(verb, files, step) {
  reading = new AbortController();
  at("progress").hidden = false;
  state("busy", "Working");
  let done = 0;
  const update = () => {
    at("progress-bar").max = files.length;
    at("progress-bar").value = done;
    at("progress-text").textContent = `${verb} ${count(files.length, "image")}: ${done} done`;
  };
  update();
  try {
    for (const chunk of api.chunks(files, model.limits)) {
      await step(chunk, reading.signal);
      done += chunk.length;
      update();
    }
  } finally {
    reading = null;
    at("progress").hidden = true;
    state("ready", "Ready");
  }
}

/** Request predictions and update the cards. */
async function predict(some) {
  const of = new Map(some.map((picture) => [picture.file, picture]));
  await withProgress("Classifying", some.map((picture) => picture.file), async (files, signal) => {
    const answers = await api.predict(files, signal);
    answers.forEach((answer, index) => {
      const picture = of.get(files[index]);
      if (!pictures.includes(picture)) return; // removed in the meantime
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
  const parts = [`${count(read.length, "image")} classified`];
  if (model.calibrated) parts.push(`${unknown} unknown`);
  if (failed) parts.push(`${failed} unreadable`);
  if (read.length === 1 && !unknown) parts.push(read[0].ranked[0][0]);
  return `${parts.join(", ")}.`;
}

function showLists() {
  at("empty").hidden = pictures.length > 0;
  at("results-tools").hidden = !pictures.some((picture) => picture.prediction);
}

function addFiles(files) {
  if (training && !model) {
    warn("Drop or paste images into a class: there is no model yet that could classify them.");
    return;
  }
  unwarn();
  inTurn(() => classifyFiles(files)).catch(fail);
}

async function classifyFiles(files) {
  if (!model) await refreshModel();
  const most = model.limits.max_image_bytes;
  const large = files.filter((file) => file.size > most).map((file) => `${file.name} (${megabytes(file.size)})`);
  if (large.length) warn(`Images are limited to ${megabytes(most)}; not sent: ${large.join(", ")}.`);
  const lot = files.filter((file) => file.size <= most).map((file) => new Picture(file));
  if (!lot.length) return;
  pictures.push(...lot);
  try {
    await predict(lot);
  } finally {
    // Stopped, refused and removed images have no card.
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
  const index = pictures.indexOf(picture);
  pictures = pictures.filter((one) => one !== picture);
  if (maps.shown() === picture) maps.close();
  picture.forget();
  showLists();
  const next = pictures[Math.min(index, pictures.length - 1)];
  (next?.card?.querySelector(".remove") ?? at("choose")).focus();
  say(`${picture.file.name} removed.`);
}

function removeAll() {
  maps.close();
  pictures.forEach((picture) => picture.forget());
  pictures = [];
  showLists();
  at("choose").focus();
  say("All images removed.");
}

async function downloadCsv() {
  const tables = [];
  const files = pictures.filter((picture) => picture.prediction).map((picture) => picture.file);
  await withProgress("Writing", files, async (chunk, signal) => tables.push(await api.predictCsv(chunk, signal)));
  download(new Blob([joined(tables)], { type: "text/csv" }), "predictions.csv");
  say(`Downloaded predictions for ${count(files.length, "image")}.`);
}

/** Update the page with predictions of the new model. */
async function refresh() {
  await refreshModel();
  const shown = pictures.filter((picture) => picture.prediction);
  if (shown.length) await predict(shown);
  if (maps.shown()) await showMaps(maps.shown());
}

async function changeClasses(change, done) {
  unwarn();
  const was = model.calibrated;
  state("busy", "Training");
  try {
    let answer;
    await inTurn(async () => {
      answer = await change();
      await refresh();
    });
    if (was && !model.calibrated) say(`${done} This removed the rejection threshold; recalibrate to restore it.`);
    else if (!was && model.calibrated) say(`${done} The rejection threshold is restored.`);
    else if (answer.recalibration) say(`${done} Calibration: ${answer.recalibration}.`);
    else say(done);
    return true;
  } catch (error) {
    state("ready", "Ready");
    fail(error);
    return false;
  }
}

function addClass(name, files) {
  return changeClasses(() => api.addClass(name, files), `Added the class ${name} and updated all predictions.`);
}

function removeClass(name) {
  return changeClasses(() => api.removeClass(name), `Removed the class ${name}.`);
}

/** Show the part that trains, in the state that the server has. */
async function startTraining() {
  training = setUpTraining({
    say,
    warn,
    unwarn,
    fail,
    onRun: (isRunning) => (isRunning ? state("busy", "Training") : state("ready", "Ready")),
    onModel: () => inTurn(refresh),
    onTest: () => {
      at("intake").scrollIntoView({ block: "start" });
      at("intake-title").focus({ preventScroll: true });
    },
  });
  at("intake-title").textContent = "Test images";
  await training.load();
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

const noFolder = () => warn("Folders can't be dropped: drop the images in it instead.");

takeChosen(at("choose"), at("files"), addFiles);
setUpAdding(
  {
    form: at("adding-form"), name: at("adding-name"), drop: at("adding-drop"), choose: at("adding-choose"),
    input: at("adding-files"), chosen: at("adding-chosen"), count: at("adding-count"), thumbs: at("adding-thumbs"),
    clear: at("adding-clear"), submit: at("adding-submit"), progress: at("adding-progress"),
  },
  { add: addClass, onError: warn, limits: () => model.limits },
);
takeDropped(document.documentElement, at("drop"), addFiles, noFolder);
takePasted((files) => training?.takePasted(files) || addFiles(files));
setUpCamera({
  opener: at("camera-open"), panel: at("camera"), video: at("camera-video"), taker: at("camera-take"),
  closer: at("camera-close"), input: at("camera-files"), onPicture: (file) => addFiles([file]), onError: warn,
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
  state("offline", "Not connected");
  fail(error);
});
