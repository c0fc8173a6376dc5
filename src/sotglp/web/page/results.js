// A card per image: its most probable classes, and whether it is unknown.

import { sentence } from "./api.js";
import { decision, percent } from "./words.js";

const BARS = 5;

function bar(name, share) {
  const row = document.createElement("li");
  const [label, track, value] = ["bar-name", "bar-track", "bar-value"].map((className) => {
    const part = document.createElement("span");
    part.className = className;
    return part;
  });
  label.textContent = name;
  value.textContent = percent(share);
  track.setAttribute("aria-hidden", "true"); // the number is read instead
  const fill = document.createElement("span");
  fill.style.width = `${100 * share}%`;
  track.append(fill);
  row.append(label, " ", value, track);
  return row;
}

function thumbnail(picture, card) {
  const image = card.querySelector("img");
  image.src = picture.url;
  // The server reads TIFF and other formats that most browsers can't show.
  image.addEventListener("error", () => {
    const note = document.createElement("p");
    note.textContent = "No preview in this browser";
    image.replaceWith(note);
  });
}

/** Fill a card with a prediction or an error. */
function fill(card, picture, model) {
  const { prediction, error } = picture;
  const badge = card.querySelector(".badge");
  card.classList.toggle("failed", Boolean(error));
  card.querySelector(".card-name").textContent = picture.file.name;
  card.querySelector(".show-maps").hidden = Boolean(error) || !model.has_maps;
  if (error) {
    card.querySelector(".card-label").textContent = "Unreadable";
    badge.hidden = true;
    card.querySelector(".bars").replaceChildren();
    card.querySelector(".card-words").textContent = sentence(error);
    return;
  }
  const [best, share] = picture.ranked[0];
  badge.hidden = !prediction.is_unknown;
  card.querySelector(".card-label").textContent = prediction.is_unknown ? "No known class" : `${best}, ${percent(share)}`;
  card.querySelector(".bars").replaceChildren(...picture.ranked.slice(0, BARS).map(([name, one]) => bar(name, one)));
  card.querySelector(".card-words").textContent = decision(prediction.ood_score, model.ood_method, model.threshold);
}

export function setUpCards(list, template, { onMaps, onRemove }) {
  function make(picture) {
    const card = template.content.firstElementChild.cloneNode(true);
    const [show, remove] = [card.querySelector(".show-maps"), card.querySelector(".remove")];
    show.setAttribute("aria-label", `Show maps of ${picture.file.name}`);
    remove.setAttribute("aria-label", `Remove ${picture.file.name}`);
    show.addEventListener("click", () => onMaps(picture));
    remove.addEventListener("click", () => onRemove(picture));
    thumbnail(picture, card);
    return card;
  }

  return {
    /** Create or update the card of an image. */
    put(picture, model) {
      if (!picture.card) {
        picture.card = make(picture);
        list.append(picture.card);
      }
      fill(picture.card, picture, model);
    },
    /** Mark the card whose maps are shown. */
    mark(shown) {
      for (const card of list.children) card.removeAttribute("aria-current");
      shown?.card?.setAttribute("aria-current", "true");
    },
  };
}
