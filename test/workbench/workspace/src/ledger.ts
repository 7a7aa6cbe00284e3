// Bookings of one account, oldest first.
import { roundToCents } from "./currency";

export interface Booking {
  readonly day: number;
  readonly amount: number;
}

/** The balance after all bookings up to the given day. */
export function balanceOnDay(bookings: readonly Booking[], day: number): number {
  let balance = 0;
  for (const booking of bookings) {
    if (booking.day <= day) balance += booking.amount;
  }
  return roundToCents(balance);
}

/** Joins two accounts into one, in the order of the days. */
export function mergeLedgers(first: readonly Booking[], second: readonly Booking[]): Booking[] {
  return [...first, ...second].sort((a, b) => a.day - b.day);
}
