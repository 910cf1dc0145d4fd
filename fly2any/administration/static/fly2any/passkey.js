// After a passkey was made: on to the recovery codes.
document.addEventListener("otp_webauthn.register_complete", (event) => {
  window.location.href = event.target.dataset.next;
});
