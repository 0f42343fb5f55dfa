// Keys of the image screen that the viewer itself doesn't have.
import { useEffect, useRef } from "./vendor/preact.js";

const isTyping = (element) =>
  element.closest?.("input:not([type=checkbox]):not([type=range]), select, textarea, dialog, .long-table");

export function useShortcuts(parts) {
  const now = useRef(parts);
  now.current = parts;
  useEffect(() => {
    let waitsForChannel = false;
    const keys = {
      o: ({ mask, changeMask }) =>
        changeMask(mask.fill ? { fill: false, outline: true } : { fill: true, outline: true }),
      "[": ({ mask, changeMask }) => changeMask({ opacity: Math.max(0, mask.opacity - 0.1) }),
      "]": ({ mask, changeMask }) => changeMask({ opacity: Math.min(1, mask.opacity + 0.1) }),
      a: ({ auto }) => auto(),
      n: ({ step }) => step(1),
      p: ({ step }) => step(-1),
      c: () => (waitsForChannel = true),
    };
    const onKeyDown = (event) => {
      const { viewer, channels, setChannels, changeMask, selectMiddle } = now.current;
      if (!viewer?.view || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
      const isOnCanvas = event.target === viewer.canvas;
      const isFree = isOnCanvas || event.target === document.body || event.target.id === "main";
      if (waitsForChannel && /^[1-9]$/.test(event.key)) {
        const index = Number(event.key) - 1;
        setChannels(
          channels.map((channel, i) => (i === index ? { ...channel, isVisible: !channel.isVisible } : channel)),
        );
        event.stopImmediatePropagation();
        event.preventDefault();
      } else if (event.key === " " && isFree) {
        event.preventDefault();
        if (!event.repeat) changeMask({ isVisible: false });
      } else if (event.key === "Enter" && isOnCanvas) selectMiddle();
      else if (keys[event.key]) {
        keys[event.key](now.current);
        if (event.key === "c") return;
      }
      waitsForChannel = false;
    };
    const onKeyUp = (event) =>
      event.key === " " &&
      now.current.viewer?.view &&
      !isTyping(event.target) &&
      now.current.changeMask({ isVisible: true });
    // First of all listeners, so that "c 1" isn't also the viewer's "1".
    document.addEventListener("keydown", onKeyDown, true);
    document.addEventListener("keyup", onKeyUp);
    return () => {
      document.removeEventListener("keydown", onKeyDown, true);
      document.removeEventListener("keyup", onKeyUp);
    };
  }, []);
}
