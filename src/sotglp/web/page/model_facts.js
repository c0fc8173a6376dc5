// What is said of the model: header, limits, classes.

import { count, figure, megabytes, percent } from "./words.js";

const at = (id) => document.getElementById(id);

function decision(model) {
  if (model.calibrated) {
    return `Pictures with a score (${model.ood_method}) below ${figure(model.threshold)} are called unknown; ` +
      `${percent(model.tpr)} of the pictures of its classes should pass.`;
  }
  return model.changed
    ? "Its classes have changed, so its threshold is gone: no picture is called unknown until the model is calibrated again."
    : "It is not calibrated: it has no threshold, and calls no picture unknown.";
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
      if (await onRemove(name)) at("classes-summary").focus(); // the button is gone
      else button.disabled = false;
    });
    item.append(button);
  }
  return item;
}

/**
 * Say what the model is.
 *
 * @param {object} health from /health
 * @param {object} model from /model
 * @param {(name: string) => Promise<boolean>} onRemove takes away a class that was added; whether it worked
 */
export function describeModel(health, model, onRemove) {
  const classes = count(model.classes.length, "class", "classes");
  at("model-name").textContent = health.model;
  at("model-facts").textContent = [classes, model.kind, health.backbone, health.device].join(" \u00b7 ");
  at("limits").textContent = `At most ${megabytes(model.limits.max_image_bytes)} a picture. ` +
    "Pictures go to the machine that runs sotglp serve, and nowhere else.";
  const maps = model.has_maps ? "" : " This kind of model has no maps.";
  at("model-note").textContent = `${decision(model)}${maps}`;
  at("classes-summary").textContent = classes.charAt(0).toUpperCase() + classes.slice(1);
  at("classes").replaceChildren(...model.classes.map((name) => entry(name, model.added.includes(name), onRemove)));
  at("adding").hidden = !model.can_add_classes;
}
