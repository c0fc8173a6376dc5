// Requests to the server.

/** A failed request; its message is a sentence for the user. */
export class Refusal extends Error {}

const MAX_ATTEMPTS = 4;
const MAX_ATTEMPTS_FILE = 30; // each may take most of the server's time limit; under load, an export takes minutes

/** An error of the library with a capital and a full stop. */
export function sentence(text) {
  const trimmed = text.trim();
  const capital = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

async function sentenceOf(response) {
  try {
    const { error } = await response.json();
    if (typeof error === "string") return sentence(error);
  } catch {
    // Not JSON: show the status.
  }
  return `The server refused the request (status ${response.status}).`;
}

/** Send a request, and retry while the server is busy. */
async function ask(path, options = {}, maxAttempts = MAX_ATTEMPTS) {
  for (let attempt = 1; ; attempt += 1) {
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Refusal("The server does not respond: check that sotglp serve is running, and try again.");
    }
    if (response.ok) return response;
    const wait = Number(response.headers.get("Retry-After"));
    if (response.status !== 503 || !wait || wait > 10 || attempt === maxAttempts) {
      throw new Refusal(await sentenceOf(response));
    }
    await pause(wait, options.signal);
  }
}

function form(field, files, entries = {}) {
  const data = new FormData();
  for (const [name, value] of Object.entries(entries)) data.append(name, value);
  for (const file of files) data.append(field, file, file.name);
  return data;
}

async function post(path, body, signal) {
  return ask(path, { method: "POST", body, signal });
}

export async function health() {
  return (await ask("health")).json();
}

export async function model() {
  return (await ask("model")).json();
}

export async function predict(files, signal) {
  return (await (await post("predict", form("images", files), signal)).json()).predictions;
}

export async function predictCsv(files, signal) {
  return (await post("predict.csv", form("images", files), signal)).text();
}

export async function explain(file, classes, signal) {
  const query = new URLSearchParams(classes.map((name) => ["classes", name]));
  return (await post(`explain?${query}`, form("image", [file]), signal)).json();
}

export async function addClass(name, files) {
  return (await post("classes", form("images", files, { name }))).json();
}

export async function removeClass(name) {
  return (await ask(`classes/${encodeURIComponent(name)}`, { method: "DELETE" })).json();
}

export async function training() {
  return (await ask("training")).json();
}

/** Change the training; returns its new state. */
async function change(method, path, query = {}) {
  return (await ask(`training/${path}?${new URLSearchParams(query)}`, { method })).json();
}

export const addTrainingClass = (name) => change("POST", "classes", { name });
export const renameTrainingClass = (id, name) => change("PATCH", `classes/${id}`, { name });
export const removeTrainingClass = (id) => change("DELETE", `classes/${id}`);
export const removeTrainingImage = (id) => change("DELETE", `images/${id}`);
export const startTraining = (backbone) => change("POST", "run", { backbone });
export const stopTraining = () => change("DELETE", "run");
export const calibrate = (tpr) => change("POST", "calibration", { tpr });

export async function addTrainingImages(id, files) {
  return (await post(`training/classes/${id}/images`, form("images", files))).json();
}

export const thumbnail = (id) => `training/images/${id}`;

/** A file that the server makes first, however long that takes, and its name. */
export async function trainingFile(kind) {
  const response = await ask(`training/${kind}`, {}, MAX_ATTEMPTS_FILE);
  const [, name] = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "") ?? [null, kind];
  return { blob: await response.blob(), name };
}

/** Files in chunks of the size of a request. */
export function chunks(files, limits) {
  const all = [];
  let bytes = 0;
  for (const file of files) {
    const last = all.at(-1);
    bytes += file.size;
    if (last && last.length < limits.max_images && bytes <= limits.max_image_bytes) {
      last.push(file);
    } else {
      all.push([file]);
      bytes = file.size;
    }
  }
  return all;
}
