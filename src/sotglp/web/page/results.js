// A card for each picture: what it is, how sure that is, and whether it is any of the classes.

import { sentence } from "./api.js";
import { likeness, percent } from "./words.js";

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
  track.setAttribute("aria-hidden", "true"); // the number says the same
  const fill = document.createElement("span");
  fill.style.width = `${100 * share}%`;
  track.append(fill);
  row.append(label, " ", value, track);
  return row;
}

function thumbnail(picture, card) {
  const image = card.querySelector("img");
  image.src = picture.url;
  // TIFF and the like: the server reads them, most browsers don't.
  image.addEventListener("error", () => {
    const place = document.createElement("p");
    place.textContent = "This browser has no preview of it";
    image.replaceWith(place);
  });
}

/** Fill a card with a prediction, or with the sentence that says why there is none. */
function fill(card, picture, model) {
  const { prediction, error } = picture;
  const badge = card.querySelector(".badge");
  card.classList.toggle("failed", Boolean(error));
  card.querySelector(".card-name").textContent = picture.file.name;
  card.querySelector(".show-maps").hidden = Boolean(error) || !model.has_maps;
  if (error) {
    card.querySelector(".card-label").textContent = "Not read";
    badge.hidden = true;
    card.querySelector(".bars").replaceChildren();
    card.querySelector(".card-words").textContent = sentence(error);
    return;
  }
  const [best, share] = picture.ranked[0];
  badge.hidden = !prediction.is_unknown;
  card.querySelector(".card-label").textContent = prediction.is_unknown ? "None of the classes" : `${best}, ${percent(share)}`;
  card.querySelector(".bars").replaceChildren(...picture.ranked.slice(0, BARS).map(([name, one]) => bar(name, one)));
  card.querySelector(".card-words").textContent = likeness(prediction.ood_score, model.ood_method, model.threshold);
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
    /** Make or renew the card of a picture. */
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
