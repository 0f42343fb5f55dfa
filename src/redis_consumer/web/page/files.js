// What can be taken along from a finished job.
import { fileUrl, objectsUrl } from "./api.js";
import { Menu } from "./ui.js";
import { html } from "./vendor/preact.js";
import { bytes } from "./words.js";

const TITLES = {
  "labels.tif": ["Label image", "TIFF, for any program"],
  "labels.ome.tif": ["Label image, OME-TIFF", "with axes and sizes"],
  "rois.zip": ["ROIs for Fiji", "drop on the ROI manager"],
  "objects.geojson": ["Outlines for QuPath", "GeoJSON"],
  "objects.csv": ["Table", "CSV, for spreadsheets"],
  "objects.parquet": ["Table, Parquet", "for Python and R"],
  "overlay.png": ["Picture with outlines", "PNG"],
  "tracks.csv": ["Tracks", "CSV"],
  "lineage.json": ["Lineage", "JSON"],
  "result.zip": ["All of the result", "zip"],
};
const STANDARD = ["labels.tif", "labels.ome.tif", "rois.zip", "objects.geojson", "objects.csv", "overlay.png"];

/** Files of a job as {url, title, hint}. */
export function filesOfJob(job) {
  const known = job.files?.length ? job.files : STANDARD.map((name) => ({ name, url: fileUrl(job.id, name) }));
  const files = known.map(({ name, url }) => ({
    name,
    url,
    title: TITLES[name]?.[0] || name,
    hint: TITLES[name]?.[1] || "",
  }));
  const order = Object.keys(TITLES);
  files.sort((a, b) => (order.indexOf(a.name) + 1 || 99) - (order.indexOf(b.name) + 1 || 99));
  if (job.result?.url && !files.some((file) => file.name === "result.zip")) {
    files.push({
      name: job.result.name || "result.zip",
      url: job.result.url,
      title: "Result as the job wrote it",
      hint: job.result.size ? `zip, ${bytes(job.result.size)}` : "zip",
    });
  }
  return files;
}

export const FilesMenu = ({ job }) => html`
  <${Menu} label="Files" isDisabled=${!job}>
    ${job && filesOfJob(job).map((file) => html`<a href=${file.url} download>${file.title}<span class="hint">${file.hint}</span></a>`)}
  <//>`;

/** Links that most people want, beside the count. */
export function QuickFiles({ job }) {
  const files = filesOfJob(job);
  const quick = [
    ["objects.csv", "CSV"],
    ["rois.zip", "Fiji ROIs"],
    ["objects.geojson", "QuPath"],
    ["labels.tif", "Labels"],
  ];
  return html`<span class="row wrap">${quick.map(([name, title]) => {
    const url = files.find((file) => file.name === name)?.url || (name === "objects.csv" ? objectsUrl(job.id) : null);
    return url && html`<a class="button small" href=${url} download>${title}</a>`;
  })}</span>`;
}
