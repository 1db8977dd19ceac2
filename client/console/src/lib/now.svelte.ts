// One clock for all ages on the page.

class ClockTime {
  now = $state(Date.now());

  constructor() {
    setInterval(() => {
      if (!document.hidden) this.now = Date.now();
    }, 1000);
  }
}

export const clockTime = new ClockTime();
