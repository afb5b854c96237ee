/** What a TLS client presents and accepts; files are PEM. */
export interface TlsOptions {
  /** The name that the certificate must be valid for, and that is sent (SNI). Default: the host of the next address. */
  readonly serverName: string | undefined;
  /** Certificates to trust instead of the system's. */
  readonly caFile: string | undefined;
  /** The client's own certificate and its key. */
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  /** Accepts any certificate. */
  readonly isInsecure: boolean;
  /** Protocols to offer (ALPN). Default: none. */
  readonly protocols?: string[];
}
