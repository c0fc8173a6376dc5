// A card per class to train on: its name, its images, and where they come from.

import { thumbnail } from "./api.js";
import { setUpCamera } from "./camera.js";
import { takeChosen, takeDropped } from "./intake.js";
import { count } from "./words.js";

function entry(image, className, onRemove) {
  const item = document.createElement("li");
  const picture = document.createElement("img");
  picture.src = thumbnail(image.id);
  picture.alt = image.name;
  picture.loading = "lazy";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "\u00d7";
  button.setAttribute("aria-label", `Remove ${image.name} from ${className}`);
  button.addEventListener("click", () => onRemove(image));
  item.append(picture, button);
  return item;
}

/**
 * @param {HTMLElement} list
 * @param {HTMLTemplateElement} template
 * @param {object} actions `add(id, files)`, `rename(id, name)`, `remove(class)`, `removeImage(image, class)`, each
 *   returning a promise; `onError(sentence)`
 */
export function setUpClassCards(list, template, actions) {
  const cards = new Map(); // by the id of the class

  function make(id) {
    const card = template.content.firstElementChild.cloneNode(true);
    const part = (selector) => card.querySelector(selector);
    const made = { card, images: new Map(), shown: null, adding: 0 };
    const add = (files) => actions.add(id, files);
    takeChosen(part(".choose"), part(".files"), add);
    takeDropped(card, part(".drop"), add, () => actions.onError("Folders can't be dropped: drop the images in it instead."));
    made.camera = setUpCamera({
      opener: part(".camera-open"), panel: part(".camera"), video: part("video"), taker: part(".camera-take"),
      closer: part(".camera-close"), input: part(".camera-files"), onPicture: (file) => add([file]),
      onError: actions.onError,
    });
    const name = part("input[name]");
    name.addEventListener("change", async () => {
      if (name.value.trim() !== made.shown.name && !(await actions.rename(id, name.value))) name.value = made.shown.name;
    });
    name.addEventListener("keydown", (event) => {
      if (event.key === "Enter") name.blur();
    });
    part(".remove-class").addEventListener("click", () => actions.remove(made.shown));
    return made;
  }

  /** Remove an image; the focus goes to the next one. */
  async function removeImage(made, image) {
    const items = [...made.images.keys()];
    const next = items[items.indexOf(image.id) + 1] ?? items[items.indexOf(image.id) - 1];
    if (!(await actions.removeImage(image, made.shown))) return;
    const target = made.images.get(next)?.querySelector("button") ?? made.card.querySelector(".choose");
    target.focus();
  }

  function fill(made, one) {
    const part = (selector) => made.card.querySelector(selector);
    const renamed = made.shown?.name !== one.name;
    made.shown = one;
    if (renamed) {
      part("input[name]").value = one.name;
      part("input[name]").setAttribute("aria-label", `Name of the class ${one.name}`);
      part(".remove-class").setAttribute("aria-label", `Remove the class ${one.name}`);
      part(".choose").setAttribute("aria-label", `Choose images of ${one.name}`);
      part(".camera-open").setAttribute("aria-label", `Use camera for ${one.name}`);
      part(".camera").setAttribute("aria-label", `Camera for ${one.name}`);
    }
    const ids = new Set(one.images.map((image) => image.id));
    for (const [id, item] of made.images) {
      if (ids.has(id) && !renamed) continue;
      item.remove();
      made.images.delete(id);
    }
    for (const image of one.images) {
      if (made.images.has(image.id)) continue;
      const item = entry(image, one.name, (removed) => removeImage(made, removed));
      made.images.set(image.id, item);
      part(".thumbs").append(item);
    }
    tell(made);
  }

  function tell(made) {
    const adding = made.adding ? `, adding ${made.adding}` : "";
    made.card.querySelector(".class-count").textContent = count(made.shown.images.length, "image") + adding;
  }

  return {
    /** Show the classes of the server. */
    update(classes) {
      const ids = new Set(classes.map((one) => one.id));
      for (const [id, made] of cards) {
        if (ids.has(id)) continue;
        made.camera.stop();
        made.card.remove();
        cards.delete(id);
      }
      for (const one of classes) {
        if (!cards.has(one.id)) {
          cards.set(one.id, make(one.id));
          list.append(cards.get(one.id).card);
        }
        fill(cards.get(one.id), one);
      }
    },
    /** Show how many images are on their way to a class. */
    adding(id, change) {
      const made = cards.get(id);
      if (!made) return;
      made.adding += change;
      tell(made);
    },
    /** The class whose card has the focus, if any. */
    focused: () => [...cards].find(([, made]) => made.card.contains(document.activeElement))?.[0],
    focus: (id) => cards.get(id)?.card.querySelector(".choose").focus(),
  };
}
