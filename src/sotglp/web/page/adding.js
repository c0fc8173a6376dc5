// The form that adds a class from a few images.

import { takeChosen, takeDropped } from "./intake.js";
import { count } from "./words.js";

/**
 * @param {object} parts elements of the form, by name
 * @param {{add: (name: string, files: File[]) => Promise<boolean>, onError: (sentence: string) => void}} callbacks
 *   `add` returns whether it succeeded
 */
export function setUpAdding(parts, { add, onError, limits }) {
  let files = [];
  let urls = [];

  function show() {
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = files.map((file) => URL.createObjectURL(file));
    parts.chosen.hidden = files.length === 0;
    parts.count.textContent = `${count(files.length, "example")} chosen`;
    parts.thumbs.replaceChildren(...files.map((file, index) => {
      const entry = document.createElement("li");
      const image = document.createElement("img");
      image.src = urls[index];
      image.alt = file.name;
      entry.append(image);
      return entry;
    }));
  }

  function take(more) {
    const most = limits().max_images;
    if (files.length + more.length > most) {
      onError(`A class can be added from at most ${count(most, "image")}: choose fewer.`);
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
  takeDropped(parts.drop, parts.drop, take, () => onError("Folders can't be dropped: drop the images in it instead."));
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
      onError("Enter a name for the class.");
      parts.name.focus();
      return;
    }
    if (!files.length) {
      onError(`Choose or drop at least one image of ${name}.`);
      parts.choose.focus();
      return;
    }
    busy(true);
    const worked = await add(name, files);
    busy(false);
    parts.submit.focus(); // a disabled button loses focus
    if (!worked) return;
    parts.name.value = "";
    files = [];
    show();
  });
}
