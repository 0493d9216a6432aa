// A screen on a wall is not scrolled: what is on it gets as large as lets all of it be seen.

/** As the page's style has it: smaller screens are held in a hand, and scrolled. */
const WALL = matchMedia('(min-width: 700px) and (min-height: 700px)');

/** The smallest letters, in percent of the natural ones: a forty-fifth of the screen's shorter side is read from three metres. */
const SMALLEST = 82;
const STEP = 2;

/** Keeps `screen` as high as the window, as far as letters may be smaller, and then without what is marked `data-spare`. */
export function keepFitting(screen: HTMLElement): void {
  let isAsked = false;
  const ask = (): void => {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => {
      isAsked = false;
      fit(screen);
    });
  };
  const sizes = new ResizeObserver(ask);
  for (const part of screen.children) sizes.observe(part);
  addEventListener('resize', ask);
}

function fit(screen: HTMLElement): void {
  if (screen.hidden) return;
  const spare = screen.querySelector<HTMLElement>('[data-spare]');
  for (const isSpared of [false, true]) {
    if (spare) spare.hidden = isSpared;
    for (let percent = 100; percent >= SMALLEST; percent -= STEP) {
      screen.style.setProperty('--fit', `${percent / 100}`);
      if (!WALL.matches || screen.scrollHeight <= innerHeight) return;
    }
  }
}
