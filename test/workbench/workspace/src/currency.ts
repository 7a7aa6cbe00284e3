// Amounts of money.

/** Half a cent goes up. */
export function roundToCents(amount: number): number {
  return Math.round(amount * 100) / 100;
}

/** The amount with its sign and two digits after the point. */
export function formatAmount(amount: number, currency: string): string {
  const sign = amount < 0 ? "-" : "";
  return `${sign}${Math.abs(roundToCents(amount)).toFixed(2)} ${currency}`;
}
