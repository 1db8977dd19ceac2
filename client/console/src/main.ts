import { mount } from "svelte";
import App from "./App.svelte";
import "./style.css";

// A page that was open during an upgrade asks for files that are gone: it loads the new ones, once.
window.addEventListener("vite:preloadError", (event) => {
  if (sessionStorage.getItem("reloaded") === document.lastModified) return;
  sessionStorage.setItem("reloaded", document.lastModified);
  event.preventDefault();
  location.reload();
});

const target = document.getElementById("app");
if (target) mount(App, { target });
