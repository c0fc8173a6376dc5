// A new class from a few pictures.

import { takeChosen, takeDropped } from "./intake.js";
import { count } from "./words.js";

/**
 * The form that adds a class.
 *
 * @param {object} parts elements of the form, by name
 * @param {{add: (name: string, files: File[]) => Promise<boolean>, onError: (sentence: string) => void}} tell
 *   `add` says whether it worked
 */
export function setUpAdding(parts, { add, onError, limits }) {
  let files = [];
  let urls = [];

  function show() {
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = files.map((file) => URL.createObjectURL(file));
    parts.chosen.hidden = files.length === 0;
    parts.count.textContent = `${count(files.length, "example")} chosen`;
    parts.thumbs.replaceChildren(...files.map((file, place) => {
      const entry = document.createElement("li");
      const image = document.createElement("img");
      image.src = urls[place];
      image.alt = file.name;
      entry.append(image);
      return entry;
    }));
  }

  function take(more) {
    const most = limits().max_images;
    if (files.length + more.length > most) {
      onError(`A class is learned from at most ${count(most, "picture")} at a time: choose fewer.`);
      return;
    }
    files = [...files, ...more];
    show();
  }

  function busy(is) {
    parts.progress.hidden = !is;
    parts.submit.disabled = is;
  }

  takeChosen(parts.choose, parts.input, take);
  takeDropped(parts.drop, parts.drop, take, () => onError("A folder can't be dropped: open it and drop its pictures."));
  parts.clear.addEventListener("click", () => {
    files = [];
    show();
    parts.choose.focus();
  });

  parts.form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = parts.name.value.trim();
    parts.name.setAttribute("aria-invalid", String(!name));
    if (!name) {
      onError("The new class has no name: write one.");
      parts.name.focus();
      return;
    }
    if (!files.length) {
      onError(`There are no pictures of ${name}: choose or drop a few.`);
      parts.choose.focus();
      return;
    }
    busy(true);
    const worked = await add(name, files);
    busy(false);
    parts.submit.focus(); // which a button loses when it is disabled
    if (!worked) return;
    parts.name.value = "";
    files = [];
    show();
  });
}
