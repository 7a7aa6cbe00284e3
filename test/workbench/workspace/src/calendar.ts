// Days on which the shop works.

const dayMs = 24 * 60 * 60 * 1000;
const holidays = new Set(["01-01", "05-01", "12-25", "12-26"]);

/** Saturday, Sunday and fixed holidays are free. */
export function isWorkday(date: Date): boolean {
  const weekday = date.getUTCDay();
  return weekday !== 0 && weekday !== 6 && !holidays.has(date.toISOString().slice(5, 10));
}

/** The day that lies the given number of workdays after `start`. */
export function addWorkdays(start: Date, days: number): Date {
  let date = start;
  for (let left = days; left > 0;) {
    date = new Date(date.getTime() + dayMs);
    if (isWorkday(date)) left -= 1;
  }
  return date;
}

/** Workdays from `first` up to, but not including, `last`. */
export function countWorkdays(first: Date, last: Date): number {
  let count = 0;
  for (let date = first; date < last; date = new Date(date.getTime() + dayMs)) {
    if (isWorkday(date)) count += 1;
  }
  return count;
}
