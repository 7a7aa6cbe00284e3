// Parcels: how heavy they are, what they cost and when they arrive.
import { addWorkdays } from "./calendar";

export interface Parcel {
  readonly weightGrams: number;
  readonly destination: "home" | "neighbour" | "overseas";
  readonly express: boolean;
}

const pricePerKilogram = { home: 3.9, neighbour: 7.5, overseas: 24 } as const;
const workdaysUnderway = { home: 2, neighbour: 4, overseas: 12 } as const;
const expressFactor = 1.8;

/** Begun kilograms are paid in full. */
export function shippingPrice(parcel: Parcel): number {
  const kilograms = Math.max(1, Math.ceil(parcel.weightGrams / 1000));
  const price = kilograms * pricePerKilogram[parcel.destination];
  return parcel.express ? price * expressFactor : price;
}

/** The day on which a parcel that leaves today should arrive. */
export function arrivalDay(parcel: Parcel, today: Date): Date {
  const days = workdaysUnderway[parcel.destination];
  return addWorkdays(today, parcel.express ? Math.ceil(days / 2) : days);
}

/** Splits goods into parcels of at most the given weight, heaviest piece first. */
export function packParcels(weightsGrams: readonly number[], mostGrams: number): number[][] {
  const parcels: number[][] = [];
  for (const weight of [...weightsGrams].sort((a, b) => b - a)) {
    const open = parcels.find((parcel) => sum(parcel) + weight <= mostGrams);
    if (open === undefined) parcels.push([weight]);
    else open.push(weight);
  }
  return parcels;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
