// People who buy, how to address them and how much they may owe.

export interface Customer {
  readonly name: string;
  readonly email: string;
  readonly ordersPaid: number;
  readonly amountOwed: number;
}

const creditPerPaidOrder = 50;
const mostCredit = 1000;

/** How much a customer may owe in all: more with each order that was paid. */
export function creditLimit(customer: Customer): number {
  return Math.min(mostCredit, customer.ordersPaid * creditPerPaidOrder);
}

/** Whether the customer may buy for this amount without paying at once. */
export function mayBuyOnCredit(customer: Customer, amount: number): boolean {
  return customer.amountOwed + amount <= creditLimit(customer);
}

/** Hides all but the first letter of the mailbox. */
export function maskEmail(email: string): string {
  const [mailbox = "", host = ""] = email.split("@");
  return `${mailbox.slice(0, 1)}***@${host}`;
}

/** Customers by the amount they owe, the largest first. */
export function largestDebtors(customers: readonly Customer[], count: number): Customer[] {
  return [...customers].sort((a, b) => b.amountOwed - a.amountOwed).slice(0, count);
}
