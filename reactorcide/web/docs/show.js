// Without a validator: the one that Swagger UI would ask is somebody else's.
SwaggerUIBundle({ url: "v1/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null });
