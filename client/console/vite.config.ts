import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// The gateway serves the result (server/pilothouse_server/gateway/pages.py): index.html at "/", the rest at /assets/.
export default defineConfig({
  base: "./",
  plugins: [svelte({ compilerOptions: { css: "external" } })],
  build: {
    outDir: "../../server/pilothouse_server/gateway/static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    reportCompressedSize: false,
  },
});
