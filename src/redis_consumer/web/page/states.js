// What a job or an upload is doing, in words, and what to do about it. Pure.
import { bytes, count, duration, plural, problemTitle, sentences, stageText } from "./words.js";

/** Below this share of usual objects, a result is shown with advice. */
export const POOR_QUALITY = 0.9;

export function describeUpload(progress) {
  const share = progress.size ? Math.floor((100 * progress.sent) / progress.size) : 0;
  const amount = `${bytes(progress.sent)} of ${bytes(progress.size)}`;
  if (progress.isLost)
    return {
      tone: "warn",
      title: `Connection lost at ${share} %`,
      detail: "The upload continues by itself when the server can be reached.",
      progress: share,
      canCancel: true,
    };
  const rate = progress.rate ? `, ${bytes(progress.rate)}/s` : "";
  return { tone: "busy", title: `Uploading, ${share} %`, detail: `${amount}${rate}`, progress: share, canCancel: true };
}

function describeWaiting(job) {
  const queue = job.queue;
  if (!queue) return { tone: "busy", title: "Waiting for a worker", detail: "", progress: null, canCancel: true };
  const place = queue.place ? `place ${count(queue.place)} of ${count(Math.max(queue.waiting || 0, queue.place))}` : "";
  const left = queue.seconds_left ? `About ${duration(queue.seconds_left)} left` : "";
  return {
    tone: "busy",
    title: ["Waiting", place].filter(Boolean).join(", "),
    progress: null,
    canCancel: true,
    detail: sentences(left, queue.sentence),
  };
}

function describeRunning(job) {
  const again = job.attempt > 1;
  return {
    tone: again ? "warn" : "busy",
    progress: job.progress || null,
    canCancel: true,
    title: `${again ? `Running again (attempt ${job.attempt})` : "Running"}: ${stageText(job.stage)}`,
    detail: again
      ? "The worker before was lost or stopped. The job started again by itself."
      : job.problem?.detail || "",
  };
}

/** Quality of a result, 0..1; null if it isn't known. */
export const qualityOf = (job) =>
  job.quality === "" || job.quality === null || job.quality === undefined ? null : Number(job.quality);

function describeDone(job) {
  if (job.objects === 0) {
    return {
      tone: "warn",
      title: "0 objects were found",
      detail: "Often the size of the objects or the channel is not what the model expects.",
      tips: ["nucleus", "channel", "model", "contrast"],
    };
  }
  const quality = qualityOf(job);
  const poor = quality !== null && quality < POOR_QUALITY;
  const title = job.objects === null || job.objects === undefined ? "Done" : plural(job.objects, "object");
  if (poor || job.warning) {
    const share =
      poor && !job.warning
        ? `Only ${Math.round(quality * 100)} % of the objects have a usual size, shape and confidence.`
        : "";
    return {
      tone: "warn",
      title,
      detail: sentences(job.warning, share),
      tips: poor ? ["nucleus", "channel", "model"] : ["nucleus"],
    };
  }
  return { tone: "good", title, detail: "" };
}

const TIPS_BY_FIELD = {
  scale: ["nucleus"],
  object_diameter_px: ["nucleus"],
  channels: ["channel"],
  model: ["model"],
  model_name: ["model"],
  model_version: ["model"],
  dimension_order: ["axes"],
  z: ["axes"],
  field_of_view: ["axes"],
};

function describeFailed(job) {
  const problem = job.problem || {};
  return {
    tone: "bad",
    title: problemTitle(problem.title, "The job failed"),
    detail: problem.detail || "",
    hint: problem.hint,
    isFinal: job.attempt >= 5,
    tips: [...(TIPS_BY_FIELD[problem.field?.replace("options.", "")] || []), "again"],
  };
}

const STATES = {
  new: describeWaiting,
  waiting: (job) => (job.queue ? describeWaiting(job) : describeRunning({ ...job, stage: "waiting" })),
  running: describeRunning,
  cancelling: () => ({
    tone: "busy",
    title: "Cancelling",
    detail: "The worker stops at the next step.",
    progress: null,
  }),
  cancelled: () => ({
    tone: "quiet",
    title: "Cancelled",
    detail: "Nothing was changed. The image is still here.",
    tips: ["again"],
  }),
  done: describeDone,
  failed: describeFailed,
  expired: () => ({
    tone: "warn",
    title: "The result has expired",
    detail: "Results are deleted after a while. Run the job again to get it back.",
    tips: ["again"],
  }),
};

/**
 * The state of a job: {tone: busy|good|warn|bad|quiet, title, detail, hint, progress, canCancel, tips}.
 *
 * `progress` is 0..100, null while it is unknown, and absent if nothing is under way. `tips` are names of things to try.
 */
export function describeJob(job) {
  return (STATES[job.status] || describeRunning)(job);
}

export const isOver = (job) => ["done", "failed", "cancelled", "expired"].includes(job?.status);
