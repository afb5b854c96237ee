// Bundles dashboard/ into one page, dist/dashboard.html, that loads nothing from elsewhere.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const { outputFiles } = await build({
  entryPoints: ["dashboard/main.ts"],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  write: false,
  legalComments: "none",
  banner: { js: "/* With uPlot (MIT), Copyright (c) Leon Sorokin, https://github.com/leeoniya/uPlot */" },
  logLevel: "warning",
});
const script = outputFiles[0].text.replaceAll("</script", "<\\/script");
const style =
  readFileSync("node_modules/uplot/dist/uPlot.min.css", "utf8") + readFileSync("dashboard/page.css", "utf8");
const page = readFileSync("dashboard/page.html", "utf8")
  .replace("/*STYLE*/", () => style)
  .replace("/*SCRIPT*/", () => script);
writeFileSync("dist/dashboard.html", page);
