"use strict";

// Filters the cards of the server-rendered page by what is in them, and their links in the table of contents.
const form = document.querySelector(".filter");
const field = form.querySelector("input");
const main = document.getElementById("main");
const cards = [...main.querySelectorAll(".card")].map((element) => ({
  element,
  text: element.textContent.toLowerCase(),
  fields: [...element.querySelectorAll(".fields th")],
}));
const links = [...document.querySelectorAll("#contents li > a")].map((element) => ({
  element,
  card: target(element)?.closest(".card"),
}));

function target(link) {
  return document.getElementById(decodeURIComponent(link.hash.slice(1)));
}

function filter() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const { element, text, fields } of cards) {
    element.hidden = !words.every((word) => text.includes(word));
    found += !element.hidden;
    for (const name of fields) {
      const matches = words.some((word) => name.textContent.toLowerCase().includes(word));
      name.parentElement.classList.toggle("match", matches);
      for (let at = name.closest("details"); matches && at; at = at.parentElement.closest("details")) {
        at.open = true;
      }
    }
  }
  for (const { element, card } of links) {
    element.parentElement.hidden = card?.hidden;
  }
  for (const section of main.querySelectorAll("section")) {
    section.hidden = words.length > 0 && !section.querySelector(".card:not([hidden])");
  }
  form.querySelector("output").textContent = words.length ? `${found} of ${cards.length}` : "";
}

// A link to something that is filtered out shows everything again.
main.addEventListener("click", (event) => {
  if (event.target.closest("a[href^='#']") && target(event.target.closest("a"))?.closest("[hidden]")) {
    field.value = "";
    filter();
  }
});
field.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.hidden = false;
// The browser may have kept the words of an earlier visit.
filter();
