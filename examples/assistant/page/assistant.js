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
const room = new Room(() => lock("You were logged out."));

function lock(why = "") {
  room.leave();
  login.querySelector(".bad").textContent = why;
  door.hidden = false;
  login.elements.name.focus();
}

async function enter() {
  let me;
  try {
    me = await get("me");
  } catch (error) {
    lock(error.status === 401 ? "" : error.message);
    return;
  }
  door.hidden = true;
  login.reset();
  await room.enter(me);
}

login.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { name, password } = login.elements;
  try {
    await post("login", { name: name.value, password: password.value });
  } catch (error) {
    login.querySelector(".bad").textContent = error.message;
    password.select();
    return;
  }
  login.querySelector(".bad").textContent = "";
  await enter();
});

document.querySelector("#logout").addEventListener("click", async () => {
  await post("logout").catch(() => {});
  history.replaceState(null, "", location.pathname);
  lock();
});

await enter();
