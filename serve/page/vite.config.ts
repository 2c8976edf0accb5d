import { defineConfig } from "vite";

export default defineConfig({
  base: "./", // the page works under any route prefix
  build: {
    outDir: "../static",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // no data: URIs, so that "default-src 'self'" is enough
    modulePreload: { polyfill: false },
    license: { fileName: "licenses.md" },
    chunkSizeWarningLimit: 800,
  },
});
