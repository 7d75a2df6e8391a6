// The page: who is there, and what they see. The modules, from the bottom:
//
//   api.js      requests to the application
//   answer.js   one answer, followed to its end: by the gateway's stream, or by asking
//   bubble.js   one message on the screen
//   thread.js   one conversation: its bubbles and its answers
//   composer.js, sidebar.js, scroll.js   the parts of the screen
//   room.js     all of it, for one user

import { get, post } from "./api.js";
import { Room } from "./room.js";

const door = document.querySelector("#door");
const login = document.querySelector("#login");
const said = login.querySelector(".bad");

async function enter() {
  try {
    const me = await get("me");
    door.hidden = true;
    new Room(me);
  } catch (error) {
    door.hidden = false;
    said.textContent = error.status === 401 ? "" : error.message;
    login.elements.name.focus();
  }
}

login.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { name, password } = login.elements;
  try {
    await post("login", { name: name.value, password: password.value });
  } catch (error) {
    said.textContent = error.message;
    password.select();
    return;
  }
  login.reset();
  await enter();
});

// Who logs out, or comes back to a page that the browser has kept, gets a new one: so nothing of one user is
// left for the next.
document.querySelector("#logout").addEventListener("click", async () => {
  await post("logout").catch(() => {});
  location.replace(location.pathname);
});
addEventListener("pageshow", ({ persisted }) => persisted && location.reload());

await enter();
