// A screen on a wall is not scrolled: what is on it gets as large as lets all of it be seen.

/** As the page's style has it: smaller screens are held in a hand, and scrolled. */
const WALL = matchMedia('(min-width: 700px) and (min-height: 700px)');

/** Sizes of letters, in percent of the natural ones. A forty-fifth of the screen's shorter side is read from three metres. */
const READABLE = [100, 82] as const;
/** Where nobody scrolls, small letters are better than none. */
const SMALL = [80, 50] as const;
const STEP = 2;

/**
 * Keeps `screen` as high as the window: by smaller letters, then without what is marked `data-spare`, then, where `isUntouched`,
 * by letters that are smaller still.
 */
export function keepFitting(screen: HTMLElement, isUntouched: () => boolean): void {
  let isAsked = false;
  const ask = (): void => {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => {
      isAsked = false;
      fit(screen, isUntouched());
    });
  };
  const sizes = new ResizeObserver(ask);
  for (const part of screen.children) sizes.observe(part);
  addEventListener('resize', ask);
}

function fit(screen: HTMLElement, isUntouched: boolean): void {
  if (screen.hidden) return;
  const spare = screen.querySelector<HTMLElement>('[data-spare]');
  const attempts = [
    { isSpared: false, range: READABLE },
    { isSpared: true, range: READABLE },
    ...(isUntouched ? [{ isSpared: true, range: SMALL }] : []),
  ];
  for (const { isSpared, range } of attempts) {
    if (spare) spare.hidden = isSpared;
    for (let percent = range[0]; percent >= range[1]; percent -= STEP) {
      screen.style.setProperty('--fit', `${percent / 100}`);
      if (!WALL.matches || screen.scrollHeight <= innerHeight) return;
    }
  }
}
