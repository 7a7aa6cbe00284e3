// Sales tax by country.

const ratePercent: Readonly<Record<string, number>> = {
  AT: 20,
  CH: 8.1,
  DE: 19,
  FR: 20,
  IT: 22,
  NL: 21,
};

/** As a fraction; countries that are not in the table pay none here. */
export function taxRateFor(country: string): number {
  return (ratePercent[country.toUpperCase()] ?? 0) / 100;
}

/** The tax that is contained in a price that already includes it. */
export function includedTax(grossAmount: number, country: string): number {
  const rate = taxRateFor(country);
  return (grossAmount * rate) / (1 + rate);
}

/** Countries whose rate is at least the given percentage, in the order of the alphabet. */
export function countriesWithRateFrom(percent: number): string[] {
  return Object.entries(ratePercent)
    .filter(([, rate]) => rate >= percent)
    .map(([country]) => country)
    .sort();
}
