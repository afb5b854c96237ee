export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

export function encodeAddress(endpoint: Endpoint): Buffer;

export function associate(
  proxy: Endpoint,
  onDatagram: (payload: Buffer, source: Buffer) => void,
): Promise<{ send(payload: Buffer, target: Endpoint): void; close(): void }>;
