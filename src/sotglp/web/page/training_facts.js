// Facts about the training: what can be done, its progress, and the accuracy of the model.

import { sentence } from "./api.js";
import { count, percent } from "./words.js";

const at = (id) => document.getElementById(id);

const OWN = new Set(["photo", "tiny"]); // ship with the package

/** Why training can't start; empty if it can. */
function obstacle(state) {
  if (state.run?.status === "running") return "";
  if (state.classes.length < 2) return "Add at least two classes.";
  const empty = state.classes.find((one) => !one.images.length);
  if (empty) return `Add images of ${empty.name}.`;
  return "";
}

function advice(state) {
  if (state.model && !state.model.is_current) return "Classes or images have changed since the training.";
  const least = Math.min(...state.classes.map((one) => one.images.length));
  if (!state.model && least < 5) return "Five or more images of each class make a better model.";
  return "";
}

function stage(run) {
  if (run.stage === "waiting") return "Starting";
  if (run.stage === "loading") return `Loading the backbone ${run.backbone}`;
  if (run.stage === "training") return run.total > 1 ? `Training: step ${run.done} of ${run.total}` : "Encoding images";
  return "The model works. Measuring its accuracy";
}

function accuracyText(accuracy, soFar) {
  const { n_correct: right, n, low, high, chance } = accuracy;
  const interval = soFar ? "" : ` 95\u00a0% interval ${percent(low)} to ${percent(high)}; chance ${percent(chance)}.`;
  return `Accuracy on held-out images${soFar ? " so far" : ""}: ${percent(right / n)} (${right} of ${n}).${interval}`;
}

/** A sentence on a training that has ended. */
export function outcome(state) {
  if (state.run.status === "stopped") return "The training was stopped.";
  const accuracy = state.model?.accuracy;
  return `Training has ended. ${accuracy ? accuracyText(accuracy, false) : ""}`.trim();
}

function describeRun(state, isRunning) {
  const { run, model } = state;
  at("train-progress").hidden = !isRunning;
  if (isRunning) {
    at("train-stage").textContent = stage(run);
    if (run.total > 1) {
      at("train-bar").max = run.total;
      at("train-bar").value = run.done;
    } else {
      at("train-bar").removeAttribute("value"); // no steps are known
    }
  }
  const accuracy = isRunning ? run.accuracy : model?.accuracy;
  at("train-accuracy").hidden = !accuracy;
  if (accuracy) at("train-accuracy").textContent = accuracyText(accuracy, isRunning);
  showWarnings("train-warnings", isRunning ? run.notes : model?.notes ?? []);
  showWarnings("calibrate-warnings", model?.calibration_notes ?? []);
}

function describeFiles(state, isRunning) {
  const { model } = state;
  const isChecked = Boolean(model?.accuracy) && !isRunning;
  at("calibrate").disabled = !isChecked;
  at("download-report").disabled = !isChecked;
  at("download-onnx").disabled = isRunning;
  at("calibrate").textContent = model?.tpr ? "Calibrate again" : "Calibrate";
  if (isRunning) at("calibrate-note").textContent = "Wait until the accuracy is measured.";
  else if (!model?.accuracy) at("calibrate-note").textContent = "Calibration needs two or more images of each class.";
  else if (model.tpr) at("calibrate-note").textContent = `Calibrated to accept ${percent(model.tpr)} of the images of its classes.`;
  else at("calibrate-note").textContent = "So that images unlike the classes are answered as unknown.";
  at("saved-note").hidden = !model?.saved_as;
  at("saved-note").textContent = `Saved as ${model?.saved_as} on the server too.`;
}

function showWarnings(id, warnings) {
  at(id).replaceChildren(...warnings.map((text) => {
    const item = document.createElement("li");
    item.textContent = sentence(text);
    return item;
  }));
}

export function describeTraining(state) {
  const isRunning = state.run?.status === "running";
  const select = at("train-backbone");
  if (!select.options.length) {
    select.replaceChildren(...state.backbones.map((name) => new Option(name)));
    select.value = state.run?.backbone ?? state.backbones[0];
  }
  select.disabled = isRunning;
  at("train-backbone-note").textContent = OWN.has(select.value)
    ? "Ships with sotglp."
    : "Downloaded once if the server does not have it, and slower.";
  const why = obstacle(state);
  at("train-start").disabled = isRunning || why !== "";
  at("train-start").textContent = state.model ? "Train again" : "Train";
  at("train-note").textContent = isRunning ? "" : why || advice(state);
  at("train-test").hidden = !state.model;
  describeRun(state, isRunning);
  describeFiles(state, isRunning);
}
