// Facts about the model: header, limits, classes.

import { count, figure, megabytes, percent } from "./words.js";

const at = (id) => document.getElementById(id);

function rejection(model) {
  if (model.calibrated) {
    return `Images with a score (${model.ood_method}) below ${figure(model.threshold)} are unknown; ` +
      `the threshold should accept ${percent(model.tpr)} of the images of its classes.`;
  }
  return model.changed
    ? "Adding a class removed the rejection threshold; recalibrate to restore it."
    : "The model isn't calibrated, so no image is rejected as unknown.";
}

function entry(name, removable, onRemove) {
  const item = document.createElement("li");
  const label = document.createElement("span");
  label.textContent = name;
  item.append(label);
  if (removable) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.textContent = "Remove";
    button.setAttribute("aria-label", `Remove the class ${name}`);
    button.addEventListener("click", async () => {
      button.disabled = true;
      if (await onRemove(name)) at("classes-summary").focus(); // the button was removed
      else button.disabled = false;
    });
    item.append(button);
  }
  return item;
}

/** Show that there is no model yet. */
export function describeNoModel() {
  at("model-name").textContent = "";
  at("model-facts").textContent = "No model yet: add classes and images, then train.";
}

/**
 * Show the facts about the model.
 *
 * @param {object} health from /health
 * @param {object} model from /model
 * @param {(name: string) => Promise<boolean>} onRemove removes an added class; whether it succeeded
 */
export function describeModel(health, model, onRemove) {
  const classes = count(model.classes.length, "class", "classes");
  at("model-name").textContent = health.model;
  at("model-facts").textContent = [classes, model.kind, health.backbone, health.device].join(" \u00b7 ");
  at("limits").textContent = `At most ${megabytes(model.limits.max_image_bytes)} per image. ` +
    "Images are sent only to the computer that runs sotglp serve.";
  const maps = model.has_maps ? "" : " This kind of model has no maps.";
  at("model-note").textContent = `${rejection(model)}${maps}`;
  at("classes-summary").textContent = classes.charAt(0).toUpperCase() + classes.slice(1);
  at("classes").replaceChildren(...model.classes.map((name) => entry(name, model.added.includes(name), onRemove)));
  at("adding").hidden = !model.can_add_classes;
}
