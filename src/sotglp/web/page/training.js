// Training on the page. The server keeps the state: the page shows it, and changes it by requests.

import * as api from "./api.js";
import { setUpClassCards } from "./class_cards.js";
import { download } from "./csv.js";
import { describeTraining, outcome } from "./training_facts.js";
import { count, megabytes } from "./words.js";

const POLL_SECONDS = 0.6;
const PROGRESS_SECONDS = 15; // between messages that a file is still being made

const at = (id) => document.getElementById(id);

/**
 * @param {object} page `say`, `warn`, `unwarn`, `fail`; `onRun(isRunning)`, `onModel()` shows a new model, `onTest()` goes to the test
 */
export function setUpTraining({ say, warn, unwarn, fail, onRun, onModel, onTest }) {
  let state = null;
  let turn = Promise.resolve(); // uploads follow one another
  let timer = null;

  const isRunning = () => state?.run?.status === "running";

  /** Show a state of the server, and ask again while it trains. */
  async function show(next) {
    const before = state;
    const stopHadFocus = document.activeElement === at("train-stop"); // it is hidden at the end
    state = next;
    cards.update(next.classes);
    describeTraining(next);
    clearTimeout(timer);
    if (isRunning()) timer = setTimeout(poll, 1000 * POLL_SECONDS);
    else if (stopHadFocus) at(next.model ? "train-test" : "train-start").focus();
    if (isRunning() || before?.run?.status === "running") onRun(isRunning());
    if (before === null) return;
    if (next.model && next.model.number !== before.model?.number) await onModel();
    if (before.run?.status === "running" && !isRunning()) {
      if (next.run.status === "failed") warn(`The training failed. ${api.sentence(next.run.error)}`);
      else say(outcome(next));
    } else if (isRunning() && next.run.stage !== before.run?.stage && next.run.stage === "checking") {
      say("The model works and can be tested. Its accuracy is measured now.");
    }
  }

  async function poll() {
    try {
      await show(await api.training());
    } catch (error) {
      fail(error);
      timer = setTimeout(poll, 5000); // the server may come back
    }
  }

  /** Request a change and show the new state; whether it succeeded. */
  async function change(request) {
    unwarn();
    try {
      await show(await request());
      return true;
    } catch (error) {
      fail(error);
      return false;
    }
  }

  /** Send images to a class, in requests of limited size. */
  function add(id, files) {
    unwarn();
    const most = state.limits.max_image_bytes;
    const large = files.filter((file) => file.size > most).map((file) => `${file.name} (${megabytes(file.size)})`);
    const sent = files.filter((file) => file.size <= most);
    const refused = large.length ? [`Images are limited to ${megabytes(most)}; not sent: ${large.join(", ")}.`] : [];
    let added = 0;
    cards.adding(id, sent.length);
    turn = turn.then(async () => {
      for (const chunk of api.chunks(sent, state.limits)) {
        try {
          const answer = await api.addTrainingImages(id, chunk);
          added += answer.added.length;
          refused.push(...answer.left_out.map((one) => api.sentence(one.error)));
          await show(answer.training);
        } catch (error) {
          if (!(error instanceof api.Refusal)) throw error;
          refused.push(error.message);
        } finally {
          cards.adding(id, -chunk.length);
        }
      }
      if (added) say(`${count(added, "image")} added.`);
      if (refused.length) warn(refused.slice(0, 3).join(" ") + (refused.length > 3 ? ` And ${refused.length - 3} more.` : ""));
    });
    return turn;
  }

  const cards = setUpClassCards(at("class-list"), at("class-template"), {
    add,
    rename: (id, name) => change(() => api.renameTrainingClass(id, name)),
    async remove(one) {
      const images = count(one.images.length, "image");
      if (one.images.length && !window.confirm(`Remove the class ${one.name} and its ${images}?`)) return;
      if (!(await change(() => api.removeTrainingClass(one.id)))) return;
      at("class-name").focus();
      say(`Removed the class ${one.name}.`);
    },
    removeImage: (image) => change(() => api.removeTrainingImage(image.id)),
    onError: warn,
  });

  at("class-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = at("class-name").value.trim();
    at("class-name").setAttribute("aria-invalid", String(!name));
    if (!name) {
      warn("Enter a name for the class.");
      at("class-name").focus();
      return;
    }
    if (!(await change(() => api.addTrainingClass(name)))) return;
    at("class-name").value = "";
    cards.focus(state.classes.at(-1).id);
    say(`Added the class ${name}.`);
  });

  at("train-start").addEventListener("click", async () => {
    if (!(await change(() => api.startTraining(at("train-backbone").value)))) return;
    at("train-stop").focus(); // the other button is disabled
    say("Training has started.");
  });
  at("train-stop").addEventListener("click", () => change(api.stopTraining));
  at("train-test").addEventListener("click", onTest);
  at("train-backbone").addEventListener("change", () => describeTraining(state));

  at("calibrate").addEventListener("click", async () => {
    at("calibrate").disabled = true;
    const worked = await change(() => api.calibrate(at("calibrate-tpr").value));
    describeTraining(state);
    at("calibrate").focus();
    if (worked) say("Calibrated. Images unlike the classes are answered as unknown now.");
  });

  for (const [kind, what] of [["report", "report"], ["onnx", "ONNX file"]]) {
    const button = at(`download-${kind}`);
    button.addEventListener("click", async () => {
      unwarn();
      button.disabled = true;
      say(`Preparing the ${what}.${kind === "onnx" ? " This takes about half a minute, and longer on a busy server." : ""}`);
      let seconds = 0;
      const progress = setInterval(() => {
        seconds += PROGRESS_SECONDS;
        say(`Preparing the ${what}: ${seconds} seconds so far.`);
      }, 1000 * PROGRESS_SECONDS);
      try {
        const { blob, name } = await api.trainingFile(kind);
        download(blob, name);
        say(`Downloaded ${name}.`);
      } catch (error) {
        say("");
        fail(error);
      } finally {
        clearInterval(progress);
        describeTraining(state);
        button.focus();
      }
    });
  }

  // Another page may have changed the state meanwhile.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !isRunning()) poll();
  });

  return {
    async load() {
      document.querySelector("main").classList.add("trains");
      for (const id of ["training", "train", "calibrating", "training-files"]) at(id).hidden = false;
      await show(await api.training());
    },
    /** Take pasted images for the class that has the focus; whether there is one. */
    takePasted(files) {
      const id = cards.focused();
      if (id === undefined) return false;
      add(id, files);
      return true;
    },
  };
}
