// Orders of customers, from the basket to the invoice.
import { formatAmount, roundToCents } from "./currency";
import type { Parcel } from "./shipping";
import { shippingPrice } from "./shipping";
import { taxRateFor } from "./taxes";

export interface OrderLine {
  readonly article: string;
  readonly pieces: number;
  readonly pricePerPiece: number;
}

export interface Order {
  readonly number: string;
  readonly country: string;
  readonly lines: readonly OrderLine[];
  readonly parcel: Parcel;
}

export type OrderState = "basket" | "placed" | "packed" | "shipped" | "returned";

const nextStates: Readonly<Record<OrderState, readonly OrderState[]>> = {
  basket: ["placed"],
  placed: ["packed"],
  packed: ["shipped"],
  shipped: ["returned"],
  returned: [],
};

/** Whether an order may go from one state to the other. */
export function canAdvance(from: OrderState, to: OrderState): boolean {
  return nextStates[from].includes(to);
}

/** The goods alone, without shipping and tax. */
export function goodsTotal(order: Order): number {
  return order.lines.reduce((total, line) => total + line.pieces * line.pricePerPiece, 0);
}

/** What the customer pays: goods, shipping and tax. */
export function invoiceTotal(order: Order): number {
  const net = goodsTotal(order) + shippingPrice(order.parcel);
  return roundToCents(net * (1 + taxRateFor(order.country)));
}

/** The last line of an invoice. */
export function invoiceFooter(order: Order, currency: string): string {
  return `Order ${order.number}: ${formatAmount(invoiceTotal(order), currency)} to pay`;
}
